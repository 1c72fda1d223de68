"""Optimizers of many networks at once: parameters (R, n), a rate and hyperparameters for each of R runs.

They compute what torch.optim's do without a loop over parameters; `tests/meta/test_parity.py` compares the two.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metalr.meta.hyperparameters import Hyperparameters
from metalr.meta.net import Shapes


class Buffers(NamedTuple):
    """Holds the state of an optimizer.

    Attributes:
        first: first moment of the gradient, (R, n).
        second: second moment, (R, n); (R, 0) for an optimizer without one.
        direction: u, the direction applied last, (R, n).
    """

    first: Tensor
    second: Tensor
    direction: Tensor


class BatchedOptimizer(ABC):
    """Updates the parameters of R networks, each by its own rate and hyperparameters.

    Attributes:
        is_sgd: whether u is a gradient or a sum of gradients, as `metalr.core.direction.Direction.is_sgd`.
        has_second: whether it keeps a second moment.
        by_tensor: whether u depends on the shapes of the network's tensors, so that it is compiled for each network.
    """

    is_sgd: bool
    has_second = False
    by_tensor = False

    def start(self, theta: Tensor) -> Buffers:
        """Returns the buffers before the first step, all zero."""
        second = torch.zeros_like(theta) if self.has_second else theta.new_zeros(len(theta), 0)
        return Buffers(torch.zeros_like(theta), second, torch.zeros_like(theta))

    def for_tensors(self, shapes: Shapes) -> BatchedOptimizer:
        """Returns the optimizer of a network with tensors of these shapes: itself, unless it is `by_tensor`."""
        return self

    def corrections(self, hyper: Hyperparameters, step: Tensor) -> tuple[Tensor, ...]:
        """Computes those factors of `direction` that depend on the step alone, (R, 1) each.

        They are apart from it because a compiled `direction` would compute them again for every parameter.

        Args:
            hyper: hyperparameters.
            step: updates before this one, shape ().
        """
        return ()

    @abstractmethod
    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyperparameters, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Computes the buffers after this step, among them the direction u to apply.

        Args:
            theta: parameters w, (R, n).
            grad: gradients g, (R, n).
            buffers: before this step.
            hyper: hyperparameters.
            corrections: of this step, see `corrections`.
        """

    def apply(self, theta: Tensor, direction: Tensor, lr: Tensor, hyper: Hyperparameters) -> Tensor:
        """Returns the parameters after a step in this direction at rates lr, (R, 1)."""
        return theta * (1.0 - lr * hyper.decoupled) - lr * direction


def _root(second: Tensor) -> Tensor:
    """Computes the root of a second moment; the addend, whose root is 1e-4 eps, keeps its derivative finite."""
    return (second + 1e-24).sqrt()


class SGD(BatchedOptimizer):
    """Computes torch.optim.SGD with dampening 0: momentum, Nesterov's or not, and coupled weight decay."""

    is_sgd = True

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyperparameters, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Computes m = momentum * m + g + decay * w, and u = m; with Nesterov, u = g + decay * w + momentum * m."""
        grad = grad + hyper.coupled * theta
        moved = hyper.beta1 * buffers.first + grad
        ahead = torch.lerp(moved, grad + hyper.beta1 * moved, hyper.nesterov)
        return Buffers(moved, buffers.second, ahead)


class Adam(BatchedOptimizer):
    """Computes torch.optim.Adam and AdamW with eps 1e-8: a run's weight decay is coupled or decoupled."""

    is_sgd = False
    has_second = True
    eps = 1e-8

    def corrections(self, hyper: Hyperparameters, step: Tensor) -> tuple[Tensor, ...]:
        """Computes 1 / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), with t = step + 1."""
        count = step + 1.0
        return 1.0 / (1.0 - hyper.beta1**count), (1.0 - hyper.beta2**count).rsqrt()

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyperparameters, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Computes u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)."""
        grad = grad + hyper.coupled * theta
        first = torch.lerp(grad, buffers.first, hyper.beta1)
        second = torch.lerp(grad.square(), buffers.second, hyper.beta2)
        scale1, scale2 = corrections
        return Buffers(first, second, scale1 * first / (scale2 * _root(second) + self.eps))


class RMSprop(BatchedOptimizer):
    """Computes torch.optim.RMSprop with momentum and eps 1e-8, not centred."""

    is_sgd = False
    has_second = True
    eps = 1e-8

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyperparameters, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Computes u = momentum * u + g / (sqrt(v) + eps)."""
        grad = grad + hyper.coupled * theta
        second = torch.lerp(grad.square(), buffers.second, hyper.beta2)
        moved = hyper.beta1 * buffers.first + grad / (_root(second) + self.eps)
        return Buffers(moved, second, moved)


class DecayInDirection(BatchedOptimizer):
    """Includes decoupled decay in the direction, as a real run does that measures the parameters' whole change."""

    def apply(self, theta: Tensor, direction: Tensor, lr: Tensor, hyper: Hyperparameters) -> Tensor:
        """Returns the parameters after a step in this direction, which includes the decay."""
        return theta - lr * direction


class Lion(DecayInDirection):
    """Computes Lion (Chen et al. 2023, algorithm 2): the sign of an interpolated momentum, with decoupled decay."""

    is_sgd = False

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyperparameters, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Computes u = sign(lerp(g, m, beta1)) + decay * w, and m = lerp(g, m, beta2)."""
        moved = torch.lerp(grad, buffers.first, hyper.beta1).sign() + hyper.decoupled * theta
        return Buffers(torch.lerp(grad, buffers.first, hyper.beta2), buffers.second, moved)


def orthogonalised(matrices: Tensor) -> Tensor:
    """Brings the singular values of matrices (R, m, n) to about 1 by five Newton-Schulz steps (Jordan 2024, Muon)."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-7)[:, None, None]
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


@dataclass(frozen=True)
class Muon(DecayInDirection):
    """Computes Muon (Jordan 2024) as torch.optim.Muon, with Nesterov's momentum and decoupled decay, for all tensors.

    A vector counts as a matrix of one column, whose orthogonal form is its unit vector (Pethick et al. 2025, Scion),
    so that one optimizer trains a whole network.

    Attributes:
        shapes: of the network's tensors, (in, out) or (n,); see `for_tensors`.
    """

    shapes: tuple[tuple[int, ...], ...] = ()

    is_sgd = False
    by_tensor = True

    def for_tensors(self, shapes: Shapes) -> Muon:
        """Returns Muon for these tensors."""
        return Muon(tuple(shapes.values()))

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyperparameters, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Computes m = lerp(g, m, momentum), u = sqrt(max(1, out / in)) orth(lerp(g, m, momentum)) + decay * w."""
        first = torch.lerp(grad, buffers.first, hyper.beta1)
        ahead = torch.lerp(grad, first, hyper.beta1)
        pieces = [_muon(piece, shape) for piece, shape in zip(self._split(ahead), self.shapes, strict=True)]
        return Buffers(first, buffers.second, torch.cat(pieces, 1) + hyper.decoupled * theta)

    def _split(self, flat: Tensor) -> tuple[Tensor, ...]:
        return torch.split(flat, [math.prod(shape) for shape in self.shapes], dim=1)


def _muon(piece: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Computes sqrt(max(1, out / in)) orth(piece) of a flat tensor (R, in * out), or of a vector (R, out)."""
    rows, columns = (1, shape[0]) if len(shape) == 1 else (math.prod(shape[:-1]), shape[-1])
    orthogonal = orthogonalised(piece.reshape(-1, rows, columns)).reshape(piece.shape)
    return orthogonal * math.sqrt(max(1.0, columns / rows))


@dataclass(frozen=True)
class MuonWithAdamW(Muon):
    """Computes Muon for the matrices between the first and the last one, and AdamW for all other tensors (Jordan 2024).

    A run has one rate, of which AdamW's is a twentieth, as 1e-3 is of Muon's usual 0.02; AdamW's betas are 0.9 and the
    run's beta 2. A network of two matrices or fewer has none in between, and Muon trains them all.
    """

    has_second = True
    share = 0.05
    beta1 = 0.9
    eps = 1e-8

    def for_tensors(self, shapes: Shapes) -> MuonWithAdamW:
        """Returns it for these tensors."""
        return MuonWithAdamW(tuple(shapes.values()))

    @property
    def orthogonal(self) -> tuple[bool, ...]:
        """Whether Muon trains it, for each of the tensors."""
        matrices = [i for i, shape in enumerate(self.shapes) if len(shape) > 1]
        chosen = matrices[1:-1] or matrices
        return tuple(i in chosen for i in range(len(self.shapes)))

    def corrections(self, hyper: Hyperparameters, step: Tensor) -> tuple[Tensor, ...]:
        """Computes 1 / (1 - 0.9^t) and 1 / sqrt(1 - beta2^t), with t = step + 1."""
        count = step + 1.0
        return 1.0 / (1.0 - self.beta1**count), (1.0 - hyper.beta2**count).rsqrt()

    def direction(
        self, theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyperparameters, corrections: tuple[Tensor, ...]
    ) -> Buffers:
        """Computes each tensor's u by its own optimizer; the decay is the rate's share, too."""
        second = torch.lerp(grad.square(), buffers.second, hyper.beta2)
        scale1, scale2 = corrections
        firsts, pieces = [], []
        parts = (self._split(flat) for flat in (grad, buffers.first, second, theta))
        for muon, shape, g, m, v, w in zip(self.orthogonal, self.shapes, *parts, strict=True):
            if muon:
                first = torch.lerp(g, m, hyper.beta1)
                pieces.append(_muon(torch.lerp(g, first, hyper.beta1), shape) + hyper.decoupled * w)
            else:
                first = torch.lerp(g, m, self.beta1)
                ahead = scale1 * first / (scale2 * _root(v) + self.eps)
                pieces.append(self.share * (ahead + hyper.decoupled * w))
            firsts.append(first)
        return Buffers(torch.cat(firsts, 1), second, torch.cat(pieces, 1))


OPTIMIZERS: dict[str, BatchedOptimizer] = {
    "sgd": SGD(),
    "adam": Adam(),
    "rmsprop": RMSprop(),
    "lion": Lion(),
    "muon": Muon(),
    "muon_adamw": MuonWithAdamW(),
}
"""Optimizers of networks, by name."""
