"""Optimizers for many runs at once: parameters (R, n), a rate and hyperparameters for each run.

They compute what torch.optim's do (a test holds them against each other), without a loop over parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor


class Hyper(NamedTuple):
    """Hyperparameters of R runs, each of shape (R, 1).

    Attributes:
        lr: initial rate lr(0).
        beta1: SGD's momentum or Adam's beta 1.
        beta2: Adam's beta 2; not used by SGD.
        coupled: weight decay added to the gradient (SGD, Adam).
        decoupled: weight decay times the rate taken off the parameters (AdamW).
    """

    lr: Tensor
    beta1: Tensor
    beta2: Tensor
    coupled: Tensor
    decoupled: Tensor

    def repeat(self, times: int) -> Hyper:
        """The same hyperparameters for `times` copies of the runs, one copy after another."""
        return Hyper(*(value.repeat(times, 1) for value in self))

    def select(self, runs: slice) -> Hyper:
        """Those of some runs."""
        return Hyper(*(value[runs] for value in self))


class Buffers(NamedTuple):
    """Moments of the gradient, and the direction u applied last, each (R, n); SGD has no second moment: (R, 0)."""

    first: Tensor
    second: Tensor
    direction: Tensor


class BatchedOptimizer(ABC):
    """One optimizer for R runs.

    Attributes:
        is_sgd: as `metalr.direction.Direction.is_sgd`.
        usual_lr: centre of the initial rates that meta-training draws.
    """

    is_sgd: bool
    usual_lr: float

    @abstractmethod
    def start(self, theta: Tensor) -> Buffers:
        """Buffers before the first step."""

    @abstractmethod
    def direction(self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, step: Tensor) -> Buffers:
        """Buffers after this step, with the direction u to apply. `step` counts from 0, shape ()."""

    @abstractmethod
    def draw(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Hyperparameters of `runs` runs; initial rates log-uniform over `decades` about the usual one."""

    def first_norm(self, grad: Tensor) -> Tensor:
        """|u| that the signals assume before the first update, shape (R,)."""
        if self.is_sgd:
            norm: Tensor = torch.linalg.vector_norm(grad, dim=1)
            return norm
        return torch.full_like(grad[:, 0], grad.shape[1] ** 0.5)

    def apply(self, theta: Tensor, direction: Tensor, lr: Tensor, hyper: Hyper) -> Tensor:
        """Parameters after the step at rates lr, shape (R, 1)."""
        return theta * (1.0 - lr * hyper.decoupled) - lr * direction


def _log_uniform(runs: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(runs, 1).uniform_(math.log(low), math.log(high), generator=generator).exp()


def _decay(runs: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Zero for half of the runs, log-uniform for the others."""
    used = torch.rand(runs, 1, generator=generator) < 0.5
    return torch.where(used, _log_uniform(runs, low, high, generator), 0.0)


class SGD(BatchedOptimizer):
    """SGD with momentum and L2 weight decay, as torch.optim.SGD with dampening 0."""

    is_sgd = True
    usual_lr = 0.1

    def start(self, theta: Tensor) -> Buffers:
        """The direction is the first moment, one tensor for both."""
        zeros = torch.zeros_like(theta)
        return Buffers(zeros, theta.new_zeros(len(theta), 0), zeros)

    def direction(self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, step: Tensor) -> Buffers:
        """U = momentum * u + g + decay * w."""
        moved = hyper.beta1 * buffers.first + grad + hyper.coupled * theta
        return Buffers(moved, buffers.second, moved)

    def draw(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Momentum 0.9 in half of the runs, none in an eighth, else 1 - momentum log-uniform in 0.02 to 0.5."""
        kind = torch.rand(runs, 1, generator=generator)
        other = 1.0 - _log_uniform(runs, 0.02, 0.5, generator)
        momentum = torch.where(kind < 0.5, 0.9, torch.where(kind < 0.625, 0.0, other))
        half = 10.0 ** (decades / 2)
        lr = _log_uniform(runs, self.usual_lr / half, self.usual_lr * half, generator)
        zeros = torch.zeros(runs, 1)
        return Hyper(lr, momentum, zeros, _decay(runs, 1e-5, 1e-2, generator), zeros)


class Adam(BatchedOptimizer):
    """Adam and AdamW with eps 1e-8, as torch.optim's: a run's decay is coupled or decoupled."""

    is_sgd = False
    usual_lr = 1e-3
    eps = 1e-8

    def start(self, theta: Tensor) -> Buffers:
        """All zero."""
        return Buffers(torch.zeros_like(theta), torch.zeros_like(theta), torch.zeros_like(theta))

    def direction(self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, step: Tensor) -> Buffers:
        """U = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)."""
        grad = grad + hyper.coupled * theta
        first = torch.lerp(grad, buffers.first, hyper.beta1)
        second = torch.lerp(grad.square(), buffers.second, hyper.beta2)
        count = step + 1.0
        scale1, scale2 = 1.0 - hyper.beta1**count, (1.0 - hyper.beta2**count).sqrt()
        return Buffers(first, second, first / (second.sqrt() / scale2 + self.eps) / scale1)

    def draw(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Betas (0.9, 0.999) in half of the runs; AdamW with decay in half, a little L2 in a quarter."""
        usual = torch.rand(runs, 1, generator=generator) < 0.5
        beta1 = torch.where(usual, 0.9, 1.0 - _log_uniform(runs, 0.03, 0.5, generator))
        beta2 = torch.where(usual, 0.999, 1.0 - _log_uniform(runs, 1e-3, 5e-2, generator))
        half = 10.0 ** (decades / 2)
        lr = _log_uniform(runs, self.usual_lr / half, self.usual_lr * half, generator)
        is_l2 = torch.rand(runs, 1, generator=generator) < 0.25
        coupled = torch.where(is_l2, _log_uniform(runs, 1e-6, 1e-3, generator), 0.0)
        decoupled = torch.where(is_l2, 0.0, _decay(runs, 1e-3, 0.3, generator))
        return Hyper(lr, beta1, beta2, coupled, decoupled)


OPTIMIZERS: dict[str, BatchedOptimizer] = {"sgd": SGD(), "adam": Adam()}
"""By the name that a draw gives."""
