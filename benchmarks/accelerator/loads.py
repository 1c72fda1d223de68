"""What a training step's cost is measured on: networks of a user's size, with batches on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCHES = 4
"""Different batches in rotation: a single one would be memorised, and its gradient vanish."""


@dataclass(frozen=True)
class Load:
    """Describes a network and its batches.

    Attributes:
        title: of the table's row.
        make: the network, in training mode, which maps a batch's inputs to its loss given its targets.
        shape: of the inputs of a batch.
        vocabulary: of tokens; 0 for images.
        classes: of the targets; 0 for a language model, whose targets are its tokens.
    """

    title: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    vocabulary: int = 0
    classes: int = 10

    def network(self, device: torch.device) -> nn.Module:
        """Makes the network on a device, of images in channels_last."""
        network = self.make().to(device)
        return network if self.vocabulary else network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batches(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Makes `BATCHES` batches on a device."""
        generator = torch.Generator().manual_seed(0)
        return [self._batch(generator, device) for _ in range(BATCHES)]

    def _batch(self, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.vocabulary:
            inputs = torch.randint(self.vocabulary, self.shape, generator=generator).to(device)
        else:
            inputs = torch.randn(self.shape, generator=generator).to(device, memory_format=torch.channels_last)
        if not self.classes:
            return inputs, inputs
        return inputs, torch.randint(self.classes, self.shape[:1], generator=generator).to(device)

    def loss(self, network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Computes a batch's loss in bfloat16."""
        inputs, targets = batch
        with torch.autocast(inputs.device.type, dtype=torch.bfloat16):
            outputs: Any = network(inputs)
        outputs = getattr(outputs, "logits", outputs).float()
        if not self.classes:
            return F.cross_entropy(outputs[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        return F.cross_entropy(outputs, targets)


def _resnet(name: str) -> nn.Module:
    from torchvision.models import get_model

    return get_model(name, num_classes=1000)


def _bert(layers: int, width: int) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    heads = max(1, width // 64)
    config = BertConfig(
        num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width
    )
    return BertForSequenceClassification(config).train()


def _gpt2(layers: int, width: int) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=layers, n_embd=width, n_head=max(1, width // 64), use_cache=False)
    return GPT2LMHeadModel(config).train()


LOADS = {
    "resnet50": Load("ResNet-50, 128 x 3 x 224 x 224", lambda: _resnet("resnet50"), (128, 3, 224, 224), classes=1000),
    "bert": Load("BERT-base, 32 x 128 tokens", lambda: _bert(12, 768), (32, 128), vocabulary=30_000, classes=2),
    "gpt2": Load("GPT-2, 8 x 1024 tokens", lambda: _gpt2(12, 768), (8, 1024), vocabulary=50_000, classes=0),
    "billion": Load(
        "GPT-2 of 1e9 parameters, 4 x 512 tokens", lambda: _gpt2(32, 1600), (4, 512), vocabulary=50_000, classes=0
    ),
}
"""By name, the most usual first."""

SMALL = {
    "resnet50": Load("ResNet-18, 2 x 3 x 32 x 32", lambda: _resnet("resnet18"), (2, 3, 32, 32), classes=1000),
    "bert": Load("BERT of 1 layer, 2 x 8 tokens", lambda: _bert(1, 64), (2, 8), vocabulary=1000, classes=2),
}
"""In their place with --smoke."""
