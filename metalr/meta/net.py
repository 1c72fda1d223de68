"""Net: a network of inner runs as a pure loss function of one network's parameters and one batch.

Each is a frozen, hashable description. `loss` is written for a single network and batched over runs by
`torch.func.vmap`; the description keys a cache of compiled steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

Params = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


class Net(ABC):
    """Describes a network by its parameters' shapes, its initialiser and its loss.

    Subclass it as a frozen dataclass with `shapes` and `loss`. The parameters of a run are one flat vector, so that an
    optimizer's step and the norms are single operations.

    Example:
        >>> from dataclasses import dataclass
        >>> from metalr.meta import Net
        >>> @dataclass(frozen=True)
        ... class Line(Net):
        ...     @property
        ...     def shapes(self):
        ...         return {"w": (4, 1), "b": (1,)}
        ...     def loss(self, params, inputs, targets):
        ...         return (inputs @ params["w"] + params["b"] - targets).square().mean()
        >>> Line().size
        5
    """

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """Shape of each parameter by name; a matrix is (in, out), and a one-dimensional one starts at zero."""

    @abstractmethod
    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the mean loss of one batch, shape (), above 0.

        Args:
            params: of one network, by name.
            inputs: of one batch, (B, ...).
            targets: of one batch, (B, ...).
        """

    @property
    def noise_size(self) -> int:
        """Number of random numbers that `training_loss` takes for each sample; 0 without dropout and augmentation."""
        return 0

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Computes the loss that training differentiates: `loss` with dropout or augmentation, where there is any.

        Args:
            params: of one network, by name.
            inputs: of one batch, (B, ...).
            targets: of one batch, (B, ...).
            noise: uniform in [0, 1), (B, noise_size).
        """
        return self.loss(params, inputs, targets)

    @cached_property
    def size(self) -> int:
        """Number of trained parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def frozen_shapes(self) -> Shapes:
        """Shape by name of each tensor that a run has of its own and does not train; most networks have none."""
        return {}

    def unflatten(self, theta: Tensor) -> Params:
        """Splits a flat vector of all trained tensors and then the frozen ones into views by name."""
        return _split(theta, self.shapes | self.frozen_shapes)

    def unflatten_trained(self, theta: Tensor) -> Params:
        """Splits a flat vector of the trained tensors into views by name."""
        return _split(theta, self.shapes)

    def flat_loss(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes `loss` for a flat vector of parameters, (size,)."""
        return self.loss(self.unflatten(theta), inputs, targets)

    def flat_training_loss(self, theta: Tensor, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Computes `training_loss` for a flat vector of parameters, (size,)."""
        return self.training_loss(self.unflatten(theta), inputs, targets, noise)

    def initialise(self, runs: int, generator: torch.Generator) -> Tensor:
        """Samples initial parameters, (runs, size).

        Each run has He-normal weights or torch's own uniform ones, times a gain of its own, log-uniform in 0.7 to 1.4.
        """
        gain = torch.empty(runs, 1).uniform_(math.log(0.7), math.log(1.4), generator=generator).exp()
        he = torch.rand(runs, 1, generator=generator) < 0.5
        pieces = []
        for shape in self.shapes.values():
            count = math.prod(shape)
            if len(shape) == 1:
                pieces.append(torch.zeros(runs, count))
                continue
            fan_in = math.prod(shape[:-1])
            normal = torch.randn(runs, count, generator=generator) * (2.0 / fan_in) ** 0.5
            uniform = (2.0 * torch.rand(runs, count, generator=generator) - 1.0) * (1.0 / fan_in) ** 0.5
            pieces.append(gain * torch.where(he, normal, uniform))
        return torch.cat(pieces, dim=1)


def _split(theta: Tensor, shapes: Shapes) -> Params:
    pieces = torch.split(theta, [math.prod(shape) for shape in shapes.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
