"""The suite's networks that models/ does not have: small enough for a thousand runs on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.heldout.data import BLOCK, CHARACTERS, MAX_TOKENS, VOCABULARY


class ResidualBlock(nn.Module):
    """Adds two 3x3 convolutions with batch norm, and a projection where the shape changes (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Sequential()
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, inputs, S, S) to (B, outputs, S / stride, S / stride)."""
        out: Tensor = (self.path(images) + self.shortcut(images)).relu()
        return out


class ResNet8(nn.Module):
    """Classifies images, as He et al. 2016 (section 4.2) with n = 1, and `width` channels at first for their 16."""

    def __init__(self, width: int = 8, outputs: int = 10) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            ResidualBlock(width, width, 1),
            ResidualBlock(width, 2 * width, 2),
            ResidualBlock(2 * width, 4 * width, 2),
        )
        self.head = nn.Linear(4 * width, outputs)
        self.to(memory_format=torch.channels_last)  # a fifth faster on a CPU

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, 3, S, S) to (B, outputs)."""
        logits: Tensor = self.head(self.stages(images).mean((2, 3)))
        return logits


class Bert(nn.Module):
    """Tells two classes apart, by transformers' BERT with 2 layers of width 32; a batch is cut to its longest row."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification  # seconds: late

        config = BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=MAX_TOKENS,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, codes: Tensor) -> Tensor:
        """Maps (B, 32), 0 where padded, to (B, 2)."""
        mask = codes != 0
        longest = int(mask.sum(1).max())
        logits: Tensor = self.bert(codes[:, :longest], attention_mask=mask[:, :longest].long()).logits
        return logits


class CharacterTransformer(nn.Module):
    """Predicts the next character, by a causal pre-norm transformer with 2 layers of width 32."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CHARACTERS, width)
        self.position = nn.Parameter(0.02 * torch.randn(BLOCK, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, CHARACTERS)
        mask = nn.Transformer.generate_square_subsequent_mask(BLOCK)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Maps (B, 32) to (B, 32, 96): of the character that follows each."""
        hidden = self.layers(self.embedding(codes) + self.position, mask=self.mask, is_causal=True)
        logits: Tensor = self.head(hidden)
        return logits
