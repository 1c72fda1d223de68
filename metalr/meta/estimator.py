"""What a gradient estimator is: from a policy and some inner runs to a gradient of the policy's weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.meta.distribution import mix_seed
from metalr.meta.rollout import Unroll
from metalr.meta.task import InnerTraining, Task

SQUASHES = ("none", "tanh", "log", "sign")
"""What a pair's difference of losses may pass through before it weighs the noise."""


def _alone(losses: Tensor) -> Tensor:
    return losses


@dataclass
class Episode:
    """One rank's part of a draw: instances of one task, and the inner runs that an estimator makes of them.

    Attributes:
        task: the rank's P instances.
        inner: how they are trained.
        pairs: numbers of the rank's instances among those of all ranks.
        seed: of the noise, with the instance's number.
        final_weight: share of the final loss in the outer loss.
        compiled: run inner steps through torch.compile.
        gather: from losses of the rank's runs, (copies, P), to those of all ranks'.
        runs: of an estimator that takes several meta-steps for an episode; they go on from here.
        carried: tensors that such an estimator keeps between its meta-steps.
        done: whether the inner runs have come to their end.
    """

    task: Task
    inner: InnerTraining
    pairs: range
    seed: tuple[int, ...] = (0,)
    final_weight: float = 0.6
    compiled: bool = False
    gather: Callable[[Tensor], Tensor] = _alone
    runs: Unroll | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)
    done: bool = False

    def noise(self, size: int, *salt: int) -> Tensor:
        """Standard normal noise of each instance, (P, size), from the seed, its number and the salt alone."""
        generators = [torch.Generator().manual_seed(mix_seed(*self.seed, pair, *salt)) for pair in self.pairs]
        drawn = torch.stack([torch.randn(size, generator=generator) for generator in generators])
        return drawn.to(self.task.device)

    def start(self, copies: int) -> Unroll:
        """The runs so far; new ones, `copies` an instance, where there are none."""
        if self.runs is None:
            self.runs = Unroll(self.task, self.inner, copies, compiled=self.compiled)
        return self.runs

    def state_dict(self) -> dict[str, Any]:
        """What a resumed meta-training needs to go on in the middle of the episode."""
        return {"runs": self.runs and self.runs.state_dict(), "carried": dict(self.carried)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on an episode of the same draw."""
        self.carried = dict(state["carried"])
        if state["runs"] is not None:
            self.start(state["runs"]["copies"]).load_state_dict(state["runs"])


@dataclass(frozen=True)
class Estimate:
    """What came of a meta-step.

    Attributes:
        gradient: of the policy's weights, mean over the rank's instances, (n,).
        losses: outer losses of all ranks' runs, (copies, all instances).
        inner_steps: taken by all ranks.
    """

    gradient: Tensor
    losses: Tensor
    inner_steps: int


class GradientEstimator(ABC):
    """Estimates the gradient of the outer loss with respect to a policy's weights.

    Attributes:
        pairs: P, instances a meta-step, over all ranks; most estimators train each by a pair of runs, which share
            initial parameters, batches and hyperparameters, so that only the policy sets them apart.
    """

    pairs: int

    @abstractmethod
    def estimate(self, policy: LRPolicy, episode: Episode) -> Estimate:
        """Advances an episode's inner runs, to their end or by a piece, and makes the estimate from them."""


def check_settings(pairs: int, sigma: float, squash: str) -> None:
    """Raises ValueError for settings of an evolution strategy that make no sense."""
    if pairs < 1 or sigma <= 0:
        raise ValueError(f"pairs={pairs}, sigma={sigma}: both must be positive")
    if squash not in SQUASHES:
        raise ValueError(f"squash={squash!r}: choose one of {', '.join(SQUASHES)}")


def squashed(difference: Tensor, everyone: Tensor, squash: str) -> Tensor:
    """Differences of pairs, squashed so that no family of tasks shouts; a gradient's length then means nothing.

    Args:
        difference: L+ - L- of some pairs, or a part of it, any shape.
        everyone: L+ - L- of all pairs on all ranks; its median size sets the scale.
        squash: "none", "sign", "tanh" of the difference over the scale, or "log": its sign times log(1 + its size over
            the scale), by which a run that is lost counts more than one that ends a little worse.
    """
    if squash == "none":
        return difference
    if squash == "sign":
        return difference.sign()
    scaled = difference / everyone.abs().median().clamp_min(1e-12)
    return torch.tanh(scaled) if squash == "tanh" else scaled.sign() * scaled.abs().log1p()


def flat_gradient(loss: Tensor, policy: LRPolicy) -> Tensor:
    """Derivative of a loss with respect to the policy's weights, in the order of its parameters, (n,)."""
    pieces = torch.autograd.grad(loss, list(policy.parameters()))
    return torch.cat([piece.flatten() for piece in pieces])
