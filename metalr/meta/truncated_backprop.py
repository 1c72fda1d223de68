"""TruncatedBackprop: automatic differentiation through a part of the inner runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metalr.core.policy import LRPolicy
from metalr.meta.estimator import Episode, Estimate, GradientEstimator, flat_gradient


@dataclass(frozen=True)
class TruncatedBackprop(GradientEstimator):
    """Differentiates a truncation's loss through its inner steps, for comparison with the other estimators.

    It has no noise and is biased, since it leaves out the effect of an action after the truncation; over long
    truncations the derivative of a chaotic run explodes (Metz et al. 2019).

    Attributes:
        pairs: P, instances of a task batch, one run each, 1 or more.
        truncations: number of parts of a run, of even length; 1 differentiates through the whole run.
    """

    pairs: int = 32
    truncations: int = 16

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.pairs < 1 or self.truncations < 1:
            raise ValueError(f"pairs={self.pairs}, truncations={self.truncations}: give 1 or more")

    def estimate(self, policy: LRPolicy, episode: Episode) -> Estimate:
        """Advances the runs by one truncation."""
        runs = episode.start(copies=1)
        runs.detach()
        first, (_, stop) = runs.step, runs.truncation(self.truncations)
        with torch.enable_grad():
            loss = runs.advance_to(stop, policy.function(differentiable=True), episode.final_weight)
            # A truncation shorter than the distance of the evaluations may have no part of the outer loss.
            gradient = flat_gradient(loss.mean(), policy) if loss.requires_grad else loss.new_zeros(policy.size)
        runs.detach()
        episode.done = runs.step == episode.inner.total_steps
        losses = loss.detach()[None]
        return Estimate(gradient, losses, losses.numel() * (runs.step - first))
