"""Aggregators: from the estimates of many task batches to the one gradient of a meta-step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class Aggregator(ABC):
    """Makes one gradient of the estimates of many task batches.

    Attributes:
        window: number of the last task batches that it wants to see beside those of the meta-step, 0 or more.
    """

    window: int

    @abstractmethod
    def aggregate(self, gradients: Tensor) -> Tensor:
        """Aggregates the estimates of task batches, (B, n), the newest last, to the optimizer's gradient, (n,)."""


@dataclass(frozen=True)
class Mean(Aggregator):
    """Takes the mean over the meta-step's task batches: an estimate of the gradient of the mean outer loss.

    Example:
        >>> Mean().aggregate(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        tensor([0.5000, 1.5000])
    """

    window: int = 0

    def aggregate(self, gradients: Tensor) -> Tensor:
        """Computes the mean, (n,)."""
        return gradients.mean(0)


@dataclass(frozen=True)
class CommonDescent(Aggregator):
    """Finds the direction along which the losses of all recent task batches fall alike.

    Families ask for opposite changes, and in the mean of their estimates these cancel. With u_i the estimate of one of
    the last B task batches, scaled to length 1,

        d = argmin mean_i (u_i . d - 1)^2 + ridge |d|^2 = U' (U U' + B ridge I)^-1 1,    U = (u_1, ..., u_B)',

    is the mean of the u_i times the inverse of their second moment, as of a full-matrix preconditioner made of recent
    gradients (Agarwal et al. 2019, "Efficient full-matrix adaptive regularization", there of steps instead of tasks,
    and to the power -1/2). Components that families ask for with opposite signs count little, and the smaller ones in
    which they agree, or which tell them apart, count much. A large ridge gives the mean of the u_i.

    The gradient has length 1, since that of squashed losses has no meaning: with plain SGD, lr is the distance that a
    meta-step moves the policy's weights. The window takes the place of momentum.

    Example:
        >>> opposed = torch.tensor([[100.0, 1.0], [-50.0, 1.0]])
        >>> torch.allclose(CommonDescent(ridge=1e-9).aggregate(opposed), torch.tensor([0.0100, 1.0]), atol=1e-2)
        True

    Attributes:
        window: number of task batches that it solves for, the last ones; those of the meta-step, where they are more.
        ridge: > 0, in units of the mean of u_i . u_i, which is 1.

    Raises:
        ValueError: for a window below 1, or a ridge that is not above 0.
    """

    window: int = 128
    ridge: float = 1e-4

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.window < 1 or not self.ridge > 0:
            settings = f"window={self.window}, ridge={self.ridge}"
            raise ValueError(f"{settings}: give a window of 1 or more and a ridge above 0")

    def aggregate(self, gradients: Tensor) -> Tensor:
        """Solves for the direction, (n,), of length 1, leaving out estimates that are zero; zero where all are."""
        unit = F.normalize(gradients[gradients.any(dim=1)].double())
        ones = unit.new_ones(len(unit))
        regularised = unit @ unit.T + self.ridge * len(unit) * torch.eye(len(unit)).to(unit)
        direction = unit.T @ torch.linalg.solve(regularised, ones)
        return F.normalize(direction, dim=0).to(gradients.dtype)
