"""A task: a network, its initial parameters and its data, for P instances at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metalr.meta.nets import Net


@dataclass(frozen=True)
class Split:
    """Inputs (P, N, ...) and targets (P, N, ...) of P instances."""

    inputs: Tensor
    targets: Tensor

    def batch(self, indices: Tensor, copies: int = 1) -> tuple[Tensor, Tensor]:
        """Samples (P, B) of each instance, repeated for `copies` runs an instance: (copies * P, B, ...)."""
        rows = torch.arange(len(indices), device=indices.device).repeat(copies)[:, None]
        columns = indices.repeat(copies, 1)
        return self.inputs[rows, columns], self.targets[rows, columns]

    def all(self, copies: int = 1) -> tuple[Tensor, Tensor]:
        """All samples of each instance, repeated for `copies` runs an instance: (copies * P, N, ...)."""
        inputs = self.inputs.repeat(copies, *[1] * (self.inputs.dim() - 1))
        return inputs, self.targets.repeat(copies, *[1] * (self.targets.dim() - 1))

    def select(self, instances: slice | Tensor) -> Split:
        """Some of the instances."""
        return Split(self.inputs[instances], self.targets[instances])

    def to(self, device: torch.device) -> Split:
        """The same samples on a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


@dataclass(frozen=True)
class Task:
    """P instances that share a network and a batch size, and nothing else.

    Attributes:
        net: the network and its loss.
        theta: initial parameters, (P, net.size).
        train: data of the inner runs.
        valid: data of the outer loss.
        batch_size: of the inner runs.
    """

    net: Net
    theta: Tensor
    train: Split
    valid: Split
    batch_size: int

    def select(self, instances: slice | Tensor) -> Task:
        """Some of the instances, by a slice or by their numbers."""
        train, valid = self.train.select(instances), self.valid.select(instances)
        return replace(self, theta=self.theta[instances], train=train, valid=valid)

    def to(self, device: torch.device) -> Task:
        """The same task on a device."""
        return replace(self, theta=self.theta.to(device), train=self.train.to(device), valid=self.valid.to(device))


class TaskFamily(ABC):
    """A distribution over tasks. Subclass it to meta-train on tasks of your own."""

    @abstractmethod
    def sample(self, instances: int, generator: torch.Generator) -> Task:
        """Draws a task with that many instances, from the generator alone, on the CPU.

        Draw networks and batch sizes from a small pool: a compiled step is made for each.
        """
