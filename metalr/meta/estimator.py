"""GradientEstimator: from a policy and some inner runs to a gradient in the policy's weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.meta.distribution import mix_seed
from metalr.meta.rollout import Unroll
from metalr.meta.task import InnerTraining, Task

SQUASHES = ("none", "tanh", "log", "sign")
"""Functions that a pair's difference of losses can pass through before it weighs the noise, see `squashed`."""


@dataclass
class Episode:
    """Holds a task batch, and the inner runs that an estimator makes of it.

    Attributes:
        task: P instances.
        inner: how they are trained.
        seed: of the noise, together with the instance's number.
        final_weight: share of the final loss in the outer loss, in [0, 1].
        compiled: run inner steps through torch.compile.
        runs: the inner runs of an estimator that takes several meta-steps for an episode; None before the first.
        carried: tensors that such an estimator keeps between its meta-steps.
        done: whether the inner runs have reached their horizon.
    """

    task: Task
    inner: InnerTraining
    seed: tuple[int, ...] = (0,)
    final_weight: float = 0.6
    compiled: bool = False
    runs: Unroll | None = None
    carried: dict[str, Tensor] = field(default_factory=dict)
    done: bool = False

    def noise(self, size: int, *salt: int) -> Tensor:
        """Samples standard normal noise, (P, size); an instance's depends on seed, its number and the salt alone."""
        seeds = [mix_seed(*self.seed, instance, *salt) for instance in range(len(self.task))]
        noise = torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        return noise.to(self.task.device)

    def start(self, copies: int) -> Unroll:
        """Returns the runs of this episode; begins them, `copies` an instance, at the first call."""
        if self.runs is None:
            self.runs = Unroll(self.task, self.inner, copies=copies, compiled=self.compiled)
        return self.runs

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed meta-training needs to continue in the middle of the episode."""
        return {"runs": self.runs and self.runs.state_dict(), "carried": dict(self.carried)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on an episode of the same task batch."""
        self.carried = dict(state["carried"])
        if state["runs"] is not None:
            self.start(state["runs"]["copies"]).load_state_dict(state["runs"])


@dataclass(frozen=True)
class Estimate:
    """Holds the result of a meta-step.

    Attributes:
        gradient: in the policy's weights, mean over the instances, (n,).
        losses: outer losses of the runs, or what a truncation adds to them, (copies, P).
        inner_steps: inner steps that were made.
    """

    gradient: Tensor
    losses: Tensor
    inner_steps: int


class GradientEstimator(ABC):
    """Estimates the gradient of the outer loss with respect to a policy's weights.

    Example:
        >>> from metalr import LRPolicy
        >>> from metalr.meta import ActionES, Component, Episode, TaskDistribution
        >>> from metalr.meta.families import QuadraticTasks
        >>> batch = TaskDistribution({"quadratic": Component(QuadraticTasks(), horizons=(10, 20))}).sample(0, 4)
        >>> policy = LRPolicy()
        >>> estimate = ActionES(pairs=4).estimate(policy, Episode(batch.task, batch.inner))
        >>> estimate.gradient.shape == (policy.size,)
        True

    Attributes:
        pairs: P, instances of a task batch. Most estimators train each by a pair of runs, which share initial
            parameters, batches and hyperparameters and so differ by their policies alone.
    """

    pairs: int

    @abstractmethod
    def estimate(self, policy: LRPolicy, episode: Episode) -> Estimate:
        """Advances an episode's inner runs, to their horizon or by a part of it, and estimates the gradient.

        Sets `episode.done` when the runs have reached their horizon.
        """


def check_settings(pairs: int, sigma: float, squash: str) -> None:
    """Raises ValueError for settings of an evolution strategy that are out of range."""
    if pairs < 1 or sigma <= 0:
        raise ValueError(f"pairs={pairs}, sigma={sigma}: give pairs of 1 or more and a sigma above 0")
    if squash not in SQUASHES:
        raise ValueError(f"squash={squash!r}: choose one of {', '.join(SQUASHES)}")


def squashed(difference: Tensor, everyone: Tensor, squash: str) -> Tensor:
    """Rescales differences of losses, so that tasks with large losses do not dominate the gradient.

    The length of a gradient from squashed differences has no meaning; its direction does.

    Args:
        difference: L+ - L- of some pairs, or a part of it, any shape.
        everyone: L+ - L- of all pairs of the task batch; the median of its absolute values is the scale.
        squash: "none"; "sign"; "tanh" of difference / scale; or "log", sign * log(1 + |difference| / scale), in which
            a pair with one diverged run weighs more than a pair with one slightly worse run.

    Returns:
        The rescaled differences, in the shape of `difference`.
    """
    if squash == "none":
        return difference
    if squash == "sign":
        return difference.sign()
    scaled = difference / everyone.abs().median().clamp_min(1e-12)
    return torch.tanh(scaled) if squash == "tanh" else scaled.sign() * scaled.abs().log1p()


def flat_gradient(loss: Tensor, policy: LRPolicy) -> Tensor:
    """Differentiates a loss with respect to the policy's weights, in the order of its parameters: (n,)."""
    pieces = torch.autograd.grad(loss, list(policy.parameters()))
    return torch.cat([piece.flatten() for piece in pieces])
