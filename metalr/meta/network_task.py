"""A task: a network, its initial parameters and its data, for P instances at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metalr.meta.architectures import Net
from metalr.meta.network_runs import NetworkRuns
from metalr.meta.task import InnerTraining, Task


@dataclass(frozen=True)
class Split:
    """Inputs (P, N, ...) and targets (P, N, ...) of P instances."""

    inputs: Tensor
    targets: Tensor

    def batch(self, indices: Tensor, copies: int = 1) -> tuple[Tensor, Tensor]:
        """Samples (P, B) of each instance, repeated for `copies` runs an instance: (copies * P, B, ...)."""
        first = torch.arange(len(indices), device=indices.device) * self.inputs.shape[1]
        rows = (indices + first[:, None]).flatten()
        return _rows(self.inputs, rows, copies, indices.shape), _rows(self.targets, rows, copies, indices.shape)

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


def _rows(samples: Tensor, rows: Tensor, copies: int, shape: torch.Size) -> Tensor:
    """Rows of samples (P, N, ...) with P and N flattened, as (copies * P, B, ...); twice as fast as by two indices."""
    batch = samples.flatten(0, 1).index_select(0, rows).view(*shape, *samples.shape[2:])
    return batch.repeat(copies, *[1] * (batch.dim() - 1)) if copies > 1 else batch


@dataclass(frozen=True)
class NetworkTask(Task):
    """P instances that share a network and a batch size, and nothing else.

    Attributes:
        net: the network and its loss.
        theta: initial parameters, (P, net.size).
        train: data of the inner runs.
        valid: data of the outer loss.
        batch_size: of the inner runs.
        scale: of the parameters inside the network, which computes with theta * scale; ones by default, (P, net.size).
        frozen: what the network has of `net.frozen_shapes`, (P, their size); empty by default.
    """

    net: Net
    theta: Tensor
    train: Split
    valid: Split
    batch_size: int
    scale: Tensor = field(default=None)  # type: ignore[assignment]
    frozen: Tensor = field(default=None)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Fills in the scale and the frozen part."""
        if self.frozen is None:
            object.__setattr__(self, "frozen", self.theta.new_zeros(len(self.theta), 0))
        if self.scale is None:
            object.__setattr__(self, "scale", torch.ones_like(self.theta))

    def __len__(self) -> int:
        """P."""
        return len(self.theta)

    @property
    def device(self) -> torch.device:
        """Of the parameters and the data."""
        return self.theta.device

    def start(self, inner: InnerTraining, copies: int, compiled: bool) -> NetworkRuns:
        """Networks at their initial parameters."""
        return NetworkRuns(self, inner, copies, compiled)

    def reparameterised(self, nats: float, generator: torch.Generator) -> NetworkTask:
        """The same networks as functions, in other units (Metz 2022, section 4.2).

        Each tensor of each instance is held at exp(-c) of its size and multiplied by exp(c) inside the network, with
        c uniform in [-nats, nats]: the loss is as before, the sizes of parameters, gradients and good rates are not.
        """
        draws = torch.empty(len(self.theta), len(self.net.shapes)).uniform_(-nats, nats, generator=generator).exp()
        counts = torch.tensor([math.prod(shape) for shape in self.net.shapes.values()])
        scale = draws.repeat_interleave(counts, dim=1).to(self.theta)
        return replace(self, theta=self.theta / scale, scale=self.scale * scale)

    def select(self, instances: slice | Tensor) -> NetworkTask:
        """Some of the instances, by a slice or by their numbers."""
        train, valid = self.train.select(instances), self.valid.select(instances)
        theta, scale, frozen = self.theta[instances], self.scale[instances], self.frozen[instances]
        return replace(self, theta=theta, train=train, valid=valid, scale=scale, frozen=frozen)

    def to(self, device: torch.device) -> NetworkTask:
        """The same task on a device."""
        theta, scale, frozen = self.theta.to(device), self.scale.to(device), self.frozen.to(device)
        train, valid = self.train.to(device), self.valid.to(device)
        return replace(self, theta=theta, train=train, valid=valid, scale=scale, frozen=frozen)


class TaskFamily(ABC):
    """A distribution over tasks. Subclass it to meta-train on tasks of your own.

    Attributes:
        optimizer: the only one that its tasks are trained by, a name out of `metalr.meta.optimizers.HYPER`; None for
            those that the distribution draws.
    """

    optimizer: str | None = None

    @abstractmethod
    def sample(self, instances: int, generator: torch.Generator) -> Task:
        """Draws a problem, such as a `Task`, with that many instances, from the generator alone, on the CPU.

        Draw networks and batch sizes from a small pool: a compiled step is made for each.
        """
