"""The suite's networks: of kinds that the development suite and meta-training do not have, small enough for a CPU."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.final.data import LETTERS, PIECE_BLOCK, PIECES


class Siren(nn.Module):
    """Maps places to colours by sines (Sitzmann et al. 2020, section 3.2: their initial weights and omega)."""

    def __init__(self, width: int = 64, layers: int = 3, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega
        sizes = [2] + [width] * layers
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.head = nn.Linear(width, 3)
        for i, layer in enumerate(self.hidden):
            inputs = layer.in_features
            nn.init.uniform_(
                layer.weight, *(s * (1 / inputs if i == 0 else math.sqrt(6 / inputs) / omega) for s in (-1, 1))
            )

    def forward(self, places: Tensor) -> Tensor:
        """(B, 2) -> (B, 3)."""
        for layer in self.hidden:
            places = (self.omega * layer(places)).sin()
        colours: Tensor = self.head(places)
        return colours


class ResidualPerceptron(nn.Module):
    """A perceptron for tables of numbers with residual blocks and layer norm (Gorishniy et al. 2021, "ResNet")."""

    def __init__(self, inputs: int, width: int = 48, blocks: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, rows: Tensor) -> Tensor:
        """(B, inputs) -> (B,)."""
        hidden = self.first(rows)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        values: Tensor = self.head(hidden).squeeze(1)
        return values


class Forecaster(nn.Module):
    """A GRU that forecasts the next value of a series."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.gru = nn.GRU(1, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """(B, L, 1) -> (B,)."""
        values: Tensor = self.head(self.gru(windows)[0][:, -1]).squeeze(1)
        return values


class VisionTransformer(nn.Module):
    """A pre-norm transformer on the patches of an image (Dosovitskiy et al. 2021), its answer the mean of all."""

    def __init__(self, patch: int = 8, width: int = 48, layers: int = 2, outputs: int = 10) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn((32 // patch) ** 2, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, outputs)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.position
        logits: Tensor = self.head(self.layers(tokens).mean(1))
        return logits


class ConvNeXt(nn.Module):
    """Depthwise 7x7 and pointwise convolutions on patches of 4, with one normalisation a block (Liu et al. 2022)."""

    def __init__(self, width: int = 32, blocks: int = 2, outputs: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.GroupNorm(1, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 7, 1, 3, groups=width),
                nn.GroupNorm(1, width),
                nn.Conv2d(width, 4 * width, 1),
                nn.GELU(),
                nn.Conv2d(4 * width, width, 1),
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, outputs)."""
        hidden = self.stem(images)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


class LetterLSTM(nn.Module):
    """An LSTM that predicts the next letter."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, 24)
        self.lstm = nn.LSTM(24, width, batch_first=True)
        self.head = nn.Linear(width, LETTERS)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, L) -> (B, L, letters)."""
        logits: Tensor = self.head(self.lstm(self.embedding(codes))[0])
        return logits


class GPT2(nn.Module):
    """transformers' GPT-2 with 2 layers of width 48 and its own dropout and tied embeddings."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel  # seconds: late

        ends = {"bos_token_id": 0, "eos_token_id": 0}  # none: its own are beyond this vocabulary
        config = GPT2Config(vocab_size=PIECES, n_positions=PIECE_BLOCK, n_embd=width, n_layer=2, n_head=4, **ends)
        self.gpt2 = GPT2LMHeadModel(config)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, L) -> (B, L, pieces)."""
        logits: Tensor = self.gpt2(codes, use_cache=False).logits
        return logits


class PairOfBags(nn.Module):
    """Tells from two bags of word pieces whether they mean the same, by their difference and product."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embedding = nn.Embedding(PIECES, width, padding_idx=0)
        self.head = nn.Sequential(nn.Linear(2 * width, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))

    def forward(self, codes: Tensor) -> Tensor:
        """(B, 2, L), 0 where padded -> margins (B,)."""
        bags = self.embedding(codes).sum(2) / (codes != 0).sum(2, keepdim=True).clamp_min(1)
        first, second = F.layer_norm(bags, bags.shape[-1:]).unbind(1)
        margins: Tensor = self.head(torch.cat([(first - second).abs(), first * second], 1)).squeeze(1)
        return margins
