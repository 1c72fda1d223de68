"""NetworkTask: a network, its initial parameters and its data, for P instances at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metalr.meta.net import Net
from metalr.meta.network_runs import NetworkRuns
from metalr.meta.split import Split
from metalr.meta.task import InnerTraining, Task


@dataclass(frozen=True)
class NetworkTask(Task):
    """Describes P instances that share a network and a batch size, and nothing else.

    Attributes:
        net: the network and its loss.
        theta: initial parameters, (P, net.size).
        train: data of the inner runs.
        valid: data of the outer loss.
        batch_size: of the inner runs.
        scale: of the parameters inside the network, which computes with theta * scale, (P, net.size); ones by default.
        frozen: values of `net.frozen_shapes`, (P, their size); empty by default.
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
        """Returns P."""
        return len(self.theta)

    @property
    def device(self) -> torch.device:
        """Device of the parameters and the data."""
        return self.theta.device

    def start(self, inner: InnerTraining, copies: int, compiled: bool) -> NetworkRuns:
        """Begins runs at the initial parameters."""
        return NetworkRuns(
            net=self.net,
            theta=self.theta,
            scale=self.scale,
            frozen=self.frozen,
            train=self.train,
            valid=self.valid,
            batch_size=self.batch_size,
            inner=inner,
            copies=copies,
            compiled=compiled,
        )

    def reparameterised(self, bound: float, generator: torch.Generator) -> NetworkTask:
        """Expresses the parameters in other units: the same functions of the inputs (Metz 2022, section 4.2).

        Each tensor of each instance is stored at exp(-c) of its size and multiplied by exp(c) inside the network, with
        c uniform in [-bound, bound]: losses stay as they are, the sizes of parameters and gradients and good rates do
        not.
        """
        shape = len(self.theta), len(self.net.shapes)
        factors = torch.empty(shape).uniform_(-bound, bound, generator=generator).exp()
        counts = torch.tensor([math.prod(shape) for shape in self.net.shapes.values()])
        scale = factors.repeat_interleave(counts, dim=1).to(self.theta)
        return replace(self, theta=self.theta / scale, scale=self.scale * scale)

    def select(self, instances: slice | Tensor) -> NetworkTask:
        """Selects some of the instances, by a slice or by their numbers."""
        train, valid = self.train.select(instances), self.valid.select(instances)
        theta, scale, frozen = self.theta[instances], self.scale[instances], self.frozen[instances]
        return replace(self, theta=theta, train=train, valid=valid, scale=scale, frozen=frozen)

    def to(self, device: torch.device) -> NetworkTask:
        """Moves the task to a device."""
        theta, scale, frozen = self.theta.to(device), self.scale.to(device), self.frozen.to(device)
        train, valid = self.train.to(device), self.valid.to(device)
        return replace(self, theta=theta, train=train, valid=valid, scale=scale, frozen=frozen)
