"""The suite's tasks: two of the development suite's networks, on work that goes on for long enough to need them."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.heldout import data
from benchmarks.heldout.networks import CharacterTransformer, ResNet8
from benchmarks.suites.problem import NetworkProblem
from benchmarks.suites.suite import Novelty, Task

USUAL_LR = {"sgd": 0.1, "adamw": 1e-3}
"""Middle of the range of initial rates, by optimizer."""

HORIZONS = (2000, 20_000)
"""A tenth, and the whole, optimizer steps."""


class AugmentedImages(NetworkProblem):
    """Crops and flips training images (He et al. 2016), at half the size and half the padding of CIFAR-10's."""

    augment = v2.Compose([v2.RandomCrop(16, padding=2), v2.RandomHorizontalFlip()])

    def loss(self) -> Tensor:
        """Computes the loss of the next batch, augmented image by image."""
        (images,), labels = next(self.batches)
        return self.criterion(self.model(torch.stack([self.augment(image) for image in images])), labels)


TASKS: dict[str, Task] = {
    "characters": Task(
        "2-layer causal transformer, width 32, on SQuAD's paragraphs, batch 16 x 32 characters",
        HORIZONS,
        lambda root, seed: NetworkProblem(CharacterTransformer, data.characters(root), 16, seed),
        Novelty("new; random Markov chains drawn", "kind drawn", "drawn", "both: beyond transformers'"),
        ("adamw",),
    ),
    "cifar10": Task(
        "batch-normalised ResNet-8, width 8, on CIFAR-10 at 16x16, cropped and flipped, batch 32",
        HORIZONS,
        lambda root, seed: AugmentedImages(ResNet8, data.cifar10(root), 32, seed),
        Novelty("new; smooth random images drawn", "new; plain convnets drawn", "drawn", "both: beyond convnets'"),
        ("sgd",),
    ),
}
"""By name."""
