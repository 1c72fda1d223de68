"""Optimizers for many runs at once: parameters (R, n), a rate and hyperparameters for each run.

They compute what torch.optim's do (a test holds them against each other), without a loop over parameters.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from metalr.meta.architectures import Net


class Hyper(NamedTuple):
    """Hyperparameters of R runs, each of shape (R, 1).

    Attributes:
        lr: initial rate lr(0).
        beta1: SGD's, RMSprop's and Muon's momentum, or Adam's and Lion's beta 1.
        beta2: Adam's and Lion's beta 2, or RMSprop's alpha; not used by SGD and Muon.
        coupled: weight decay added to the gradient (all but Lion and Muon).
        decoupled: weight decay times the rate taken off the parameters (AdamW, Lion, Muon).
        nesterov: 1 for Nesterov's momentum (SGD), else 0.
    """

    lr: Tensor
    beta1: Tensor
    beta2: Tensor
    coupled: Tensor
    decoupled: Tensor
    nesterov: Tensor

    @classmethod
    def of(cls, lr: Tensor, beta1: float = 0.0, beta2: float = 0.0) -> Hyper:
        """The same momentum or betas for all runs, from their rates (R, 1), without decay."""
        zeros = torch.zeros_like(lr)
        return cls(lr, zeros + beta1, zeros + beta2, zeros, zeros, zeros)

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


class HyperDistribution(ABC):
    """Where the hyperparameters of runs are drawn from.

    Attributes:
        usual_lr: centre of the initial rates.
    """

    usual_lr: float

    @abstractmethod
    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Hyperparameters of `runs` runs; initial rates log-uniform over `decades` about the usual one."""

    def _rates(self, runs: int, generator: torch.Generator, decades: float) -> Tensor:
        """Initial rates, log-uniform over `decades` about the usual one, (R, 1)."""
        half = 10.0 ** (decades / 2)
        return _log_uniform(runs, self.usual_lr / half, self.usual_lr * half, generator)


class Shrinkage(HyperDistribution):
    """Of boosted trees: a rate is all that they have, as a problem of theirs brings how trees grow."""

    usual_lr = 0.1

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Rates alone."""
        return Hyper.of(self._rates(runs, generator, decades))


class BatchedOptimizer(HyperDistribution):
    """One optimizer for R runs.

    Attributes:
        is_sgd: as `metalr.core.direction.Direction.is_sgd`.
        has_second: whether it keeps a second moment.
        by_tensor: whether the rule looks at each tensor by itself, and is compiled for each network.
    """

    is_sgd: bool
    has_second = False
    by_tensor = False

    def start(self, theta: Tensor) -> Buffers:
        """Buffers before the first step, all zero."""
        second = torch.zeros_like(theta) if self.has_second else theta.new_zeros(len(theta), 0)
        return Buffers(torch.zeros_like(theta), second, torch.zeros_like(theta))

    def on(self, net: Net) -> BatchedOptimizer:
        """The rule for a network's parameters: itself, unless it looks at each tensor by itself."""
        return self

    def corrections(self, hyper: Hyper, step: Tensor) -> tuple[Tensor, ...]:
        """What of `direction` depends on the number of the step, which counts from 0, shape (): (R, 1) each.

        It stands apart as a compiled `direction` would take it anew for every parameter.
        """
        return ()

    @abstractmethod
    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Buffers after this step, with the direction u to apply."""

    def apply(self, theta: Tensor, direction: Tensor, lr: Tensor, hyper: Hyper) -> Tensor:
        """Parameters after the step at rates lr, shape (R, 1)."""
        return theta * (1.0 - lr * hyper.decoupled) - lr * direction


def _log_uniform(runs: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(runs, 1).uniform_(math.log(low), math.log(high), generator=generator).exp()


def _root(second: Tensor) -> Tensor:
    """The square root of a second moment; what is added, a ten-thousandth of eps, keeps its derivative finite at 0."""
    return (second + 1e-24).sqrt()


def _decay(runs: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Zero for half of the runs, log-uniform for the others."""
    used = torch.rand(runs, 1, generator=generator) < 0.5
    return torch.where(used, _log_uniform(runs, low, high, generator), 0.0)


class SGD(BatchedOptimizer):
    """SGD with momentum, Nesterov's or not, and L2 weight decay, as torch.optim.SGD with dampening 0."""

    is_sgd = True
    usual_lr = 0.1

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """M = momentum * m + g + decay * w, and u = m, or with Nesterov g + decay * w + momentum * m."""
        grad = grad + hyper.coupled * theta
        moved = hyper.beta1 * buffers.first + grad
        ahead = torch.lerp(moved, grad + hyper.beta1 * moved, hyper.nesterov)
        return Buffers(moved, buffers.second, ahead)

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Momentum 0.9 in half of the runs, none in an eighth, else 1 - momentum log-uniform in 0.02 to 0.5.

        A quarter of the runs have Nesterov's momentum.
        """
        kind = torch.rand(runs, 1, generator=generator)
        other = 1.0 - _log_uniform(runs, 0.02, 0.5, generator)
        momentum = torch.where(kind < 0.5, 0.9, torch.where(kind < 0.625, 0.0, other))
        lr = self._rates(runs, generator, decades)
        nesterov = (torch.rand(runs, 1, generator=generator) < 0.25).float()
        zeros = torch.zeros(runs, 1)
        return Hyper(lr, momentum, zeros, _decay(runs, 1e-5, 1e-2, generator), zeros, nesterov)


class Adam(BatchedOptimizer):
    """Adam and AdamW with eps 1e-8, as torch.optim's: a run's decay is coupled or decoupled."""

    is_sgd = False
    usual_lr = 1e-3
    has_second = True
    eps = 1e-8

    def corrections(self, hyper: Hyper, step: Tensor) -> tuple[Tensor, ...]:
        """1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t)."""
        count = step + 1.0
        return 1.0 / (1.0 - hyper.beta1**count), (1.0 - hyper.beta2**count).rsqrt()

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """U = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)."""
        grad = grad + hyper.coupled * theta
        first = torch.lerp(grad, buffers.first, hyper.beta1)
        second = torch.lerp(grad.square(), buffers.second, hyper.beta2)
        scale1, scale2 = corrections
        return Buffers(first, second, scale1 * first / (scale2 * _root(second) + self.eps))

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Betas (0.9, 0.999) in half of the runs; AdamW with decay in half, a little L2 in a quarter."""
        usual = torch.rand(runs, 1, generator=generator) < 0.5
        beta1 = torch.where(usual, 0.9, 1.0 - _log_uniform(runs, 0.03, 0.5, generator))
        beta2 = torch.where(usual, 0.999, 1.0 - _log_uniform(runs, 1e-3, 5e-2, generator))
        lr = self._rates(runs, generator, decades)
        is_l2 = torch.rand(runs, 1, generator=generator) < 0.25
        coupled = torch.where(is_l2, _log_uniform(runs, 1e-6, 1e-3, generator), 0.0)
        decoupled = torch.where(is_l2, 0.0, _decay(runs, 1e-3, 0.3, generator))
        return Hyper(lr, beta1, beta2, coupled, decoupled, torch.zeros_like(lr))


class RMSprop(BatchedOptimizer):
    """RMSprop with momentum and eps 1e-8, as torch.optim.RMSprop, not centred."""

    is_sgd = False
    usual_lr = 1e-3
    has_second = True
    eps = 1e-8

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """U = momentum * u + g / (sqrt(v) + eps)."""
        grad = grad + hyper.coupled * theta
        second = torch.lerp(grad.square(), buffers.second, hyper.beta2)
        moved = hyper.beta1 * buffers.first + grad / (_root(second) + self.eps)
        return Buffers(moved, second, moved)

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Alpha 0.99 in half of the runs, momentum 0.9 in a third."""
        usual = torch.rand(runs, 1, generator=generator) < 0.5
        alpha = torch.where(usual, 0.99, 1.0 - _log_uniform(runs, 1e-3, 0.1, generator))
        momentum = 0.9 * (torch.rand(runs, 1, generator=generator) < 0.33).float()
        lr = self._rates(runs, generator, decades)
        zeros = torch.zeros(runs, 1)
        return Hyper(lr, momentum, alpha, zeros, zeros, zeros)


class DecayInDirection(BatchedOptimizer):
    """A rule whose direction holds its decoupled decay: a real run reads it off the parameters' whole change."""

    def apply(self, theta: Tensor, direction: Tensor, lr: Tensor, hyper: Hyper) -> Tensor:
        """Parameters after the step; the direction holds the decay."""
        return theta - lr * direction


class Lion(DecayInDirection):
    """Lion (Chen et al. 2023, algorithm 2): the sign of an interpolated momentum, with decoupled decay."""

    is_sgd = False
    usual_lr = 1e-4

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """U = sign(lerp(g, m, beta1)) + decay * w, and m = lerp(g, m, beta2)."""
        moved = torch.lerp(grad, buffers.first, hyper.beta1).sign() + hyper.decoupled * theta
        return Buffers(torch.lerp(grad, buffers.first, hyper.beta2), buffers.second, moved)

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Betas (0.9, 0.99), decay in half."""
        lr = self._rates(runs, generator, decades)
        zeros = torch.zeros(runs, 1)
        return Hyper(lr, zeros + 0.9, zeros + 0.99, zeros, _decay(runs, 1e-2, 1.0, generator), zeros)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (R, m, n) with singular values of about 1, by five Newton-Schulz steps (Jordan 2024, Muon)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


@dataclass(frozen=True)
class Muon(DecayInDirection):
    """Muon (Jordan 2024) with Nesterov's momentum and decoupled decay, as torch.optim.Muon, for all tensors.

    A vector is a matrix of one column, whose orthogonal form is its direction (Pethick et al. 2025, Scion), so that
    one rule serves a whole network.

    Attributes:
        shapes: of the network's tensors, (in, out) or (n,); see `on`.
    """

    shapes: tuple[tuple[int, ...], ...] = ()

    is_sgd = False
    by_tensor = True
    usual_lr = 0.02

    def on(self, net: Net) -> Muon:
        """For that network's tensors."""
        return Muon(tuple(net.shapes.values()))

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """M = lerp(g, m, momentum), and u = sqrt(max(1, out / in)) orth(lerp(g, m, momentum)) + decay * w."""
        first = torch.lerp(grad, buffers.first, hyper.beta1)
        ahead = torch.lerp(grad, first, hyper.beta1)
        pieces, sizes = [], [math.prod(shape) for shape in self.shapes]
        for shape, piece in zip(self.shapes, torch.split(ahead, sizes, dim=1), strict=True):
            rows, columns = (1, shape[0]) if len(shape) == 1 else (math.prod(shape[:-1]), shape[-1])
            scale = max(1.0, columns / rows) ** 0.5
            pieces.append(scale * orthogonalised(piece.reshape(-1, rows, columns)).reshape(piece.shape))
        return Buffers(first, buffers.second, torch.cat(pieces, 1) + hyper.decoupled * theta)

    def sample(self, runs: int, generator: torch.Generator, decades: float) -> Hyper:
        """Momentum 0.95, decay in half."""
        lr = self._rates(runs, generator, decades)
        zeros = torch.zeros(runs, 1)
        return Hyper(lr, zeros + 0.95, zeros, zeros, _decay(runs, 1e-3, 0.3, generator), zeros)


OPTIMIZERS: dict[str, BatchedOptimizer] = {
    "sgd": SGD(),
    "adam": Adam(),
    "rmsprop": RMSprop(),
    "lion": Lion(),
    "muon": Muon(),
}
"""Of networks, by the name that a draw gives."""

HYPER: dict[str, HyperDistribution] = OPTIMIZERS | {"boosting": Shrinkage()}
"""Distributions of hyperparameters, by the name of an optimizer, boosted trees' among them."""
