"""Truncated backpropagation through the inner runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metalr.core.policy import LRPolicy
from metalr.meta.estimator import Episode, Estimate, GradientEstimator, flat_gradient


@dataclass(frozen=True)
class TruncatedBackprop(GradientEstimator):
    """The derivative of a truncation's loss by automatic differentiation through its inner steps.

    Without noise, and biased: what a decision does after the truncation is not seen, and over long pieces the
    derivative of a chaotic run explodes (Metz et al. 2019). For comparison.

    Attributes:
        pairs: P, instances a step, one run each.
        truncations: pieces of a run, of even length; 1 differentiates through the whole run.
    """

    pairs: int = 32
    truncations: int = 16

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.pairs < 1 or self.truncations < 1:
            raise ValueError(f"pairs={self.pairs}, truncations={self.truncations}: give 1 or more")

    def estimate(self, policy: LRPolicy, episode: Episode) -> Estimate:
        """One truncation."""
        runs = episode.start(copies=1)
        runs.detach()
        first, (_, stop) = runs.step, runs.truncation(self.truncations)
        with torch.enable_grad():
            loss = runs.piece(policy.function(differentiable=True), stop, episode.final_weight)
            # A piece that is shorter than the evaluations are apart may have no part of the outer loss.
            gradient = flat_gradient(loss.mean(), policy) if loss.requires_grad else loss.new_zeros(policy.size)
        runs.detach()
        episode.done = runs.step == episode.inner.total_steps
        everyone = episode.gather(loss.detach()[None])
        return Estimate(gradient, everyone, everyone.numel() * (runs.step - first))
