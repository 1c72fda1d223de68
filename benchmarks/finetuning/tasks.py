"""The suite's tasks: a pretrained network under a fresh head, with what it is fine-tuned on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.finetuning import data, weights
from benchmarks.suites.problem import NetworkProblem, Problem
from benchmarks.suites.suite import Novelty, Task
from models import LoRA

USUAL_LR = {"sgd": 1e-2, "adamw": 1e-4}
"""Middle of the range of initial rates, by optimizer."""

CHUNK = 50
"""Rows that are evaluated at once."""

HORIZONS = (150, 600)
"""Short and long, optimizer steps."""


class FineTuning(NetworkProblem):
    """Fine-tunes a network; evaluates it a few rows at a time, as it is larger than those of the held-out suite."""

    def validate(self) -> tuple[Tensor, Tensor]:
        """Computes outputs in evaluation mode."""
        self.model.eval()
        starts = range(0, len(self.val.labels), CHUNK)
        outputs = torch.cat([self.model(*self.val.rows(slice(i, i + CHUNK)).inputs) for i in starts])
        self.model.train()
        return outputs, self.val.labels


def _sentences(task: str, lora: LoRA | None, root: str | None, seed: int) -> Problem:
    parts = data.sentences(root, task, weights.find(weights.MINILM))
    return FineTuning(partial(weights.minilm, lora), parts, 16, seed)


def _images(root: str | None, seed: int) -> Problem:
    network: Callable[[], nn.Module] = weights.mobilenet
    return FineTuning(network, data.images(root), 32, seed)


ADAPTERS = LoRA(rank=8, alpha=16.0, targets=["query", "value"])

_SENTENCES = Novelty("new", "new: six layers, pretrained", "drawn", "150 drawn; 600: beyond transformers'")

TASKS: dict[str, Task] = {
    "minilm-sst2": Task(
        "MiniLM on SST-2, batch 16", HORIZONS, partial(_sentences, "sst2", None), _SENTENCES, ("adamw",)
    ),
    "minilm-mrpc": Task(
        "MiniLM on MRPC, batch 16",
        HORIZONS,
        partial(_sentences, "mrpc", None),
        _SENTENCES,
        ("adamw",),
        by_default=HORIZONS[:1],
    ),
    "minilm-lora-sst2": Task(
        "MiniLM with LoRA of rank 8 in query and value on SST-2, batch 16",
        HORIZONS,
        partial(_sentences, "sst2", ADAPTERS),
        _SENTENCES,
        ("adamw",),
        by_default=HORIZONS[:1],
    ),
    "mobilenet-cifar10": Task(
        "MobileNetV2 on CIFAR-10 at 64 pixels, batch 32",
        HORIZONS,
        _images,
        Novelty("new", "new: pretrained, depthwise", "drawn", "150 drawn; 600: beyond convnets'"),
        by_default=HORIZONS[:1],
    ),
}
"""By name; what is run by default fits into some hours of two cores."""

PACKAGES = {name: weights.MINILM if name.startswith("minilm") else weights.MOBILENET for name in TASKS}
"""The package with each task's weights."""
