"""Evolution strategies with noise on the policy's weights: FullES, PES, NRES."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from metalr.core.policy import LRPolicy
from metalr.meta.estimator import Episode, Estimate, GradientEstimator, check_settings, squashed
from metalr.meta.rollout import rollout


def antithetic_gradient(weights: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Computes the gradient of antithetic evolution strategies: the mean over pairs of weight * noise / (2 sigma).

    With weight = L(theta + sigma eps) - L(theta - sigma eps) this is an unbiased estimate of the gradient of L
    smoothed by a Gaussian of width sigma (Nesterov and Spokoiny 2017, eq. 26).

    Args:
        weights: differences of the pairs' losses, squashed or not, (P,).
        noise: eps, standard normal, (P, n).
        sigma: width of the smoothing, > 0.

    Returns:
        The gradient, (n,).
    """
    return weights @ noise / (2.0 * sigma * len(weights))


def perturbed(theta: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Perturbs the weights (n,) for all pairs: theta + sigma eps, then theta - sigma eps, (2 P, n)."""
    return torch.cat((theta + sigma * noise, theta - sigma * noise))


@dataclass(frozen=True)
class FullES(GradientEstimator):
    """Estimates the gradient by antithetic evolution strategies over whole inner runs.

    Attributes:
        pairs: P, antithetic pairs of a task batch, 1 or more.
        sigma: standard deviation of the noise on the policy's weights, > 0.
        squash: function of a pair's difference of losses, see `metalr.meta.estimator.squashed`.
    """

    pairs: int = 32
    sigma: float = 0.05
    squash: str = "tanh"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_settings(self.pairs, self.sigma, self.squash)

    def estimate(self, policy: LRPolicy, episode: Episode) -> Estimate:
        """Makes whole runs with one perturbation a pair."""
        theta = parameters_to_vector(policy.parameters()).detach()
        noise = episode.noise(theta.numel())
        policies = policy.population(perturbed(theta, noise, self.sigma))
        runs = rollout(episode.task, episode.inner, policies, copies=2, compiled=episode.compiled)
        episode.done = True
        losses = runs.outer_loss(episode.final_weight).view(2, -1)
        difference = losses[0] - losses[1]
        gradient = antithetic_gradient(squashed(difference, difference, self.squash), noise, self.sigma)
        return Estimate(gradient, losses, losses.numel() * episode.inner.total_steps)


@dataclass(frozen=True)
class _TruncatedES(GradientEstimator):
    """Estimates the gradient from one truncation of the runs a meta-step; weights are updated between truncations.

    Attributes:
        pairs: P, antithetic pairs of a task batch, 1 or more.
        sigma: standard deviation of the noise on the policy's weights, > 0.
        truncations: number of parts of a run, of even length, 1 or more.
        squash: function of a pair's difference of losses, see `metalr.meta.estimator.squashed`.
    """

    pairs: int = 32
    sigma: float = 0.05
    truncations: int = 4
    squash: str = "tanh"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        check_settings(self.pairs, self.sigma, self.squash)
        if self.truncations < 1:
            raise ValueError(f"truncations={self.truncations}: give 1 or more")

    def _noises(self, episode: Episode, size: int, truncation: int) -> tuple[Tensor, Tensor]:
        """Returns the noise of this truncation, and the noise that its losses weigh, (P, size) each."""
        raise NotImplementedError

    @torch.no_grad()
    def estimate(self, policy: LRPolicy, episode: Episode) -> Estimate:
        """Advances the runs by one truncation."""
        runs = episode.start(copies=2)
        theta = parameters_to_vector(policy.parameters()).detach()
        truncation, stop = runs.truncation(self.truncations)
        noise, weighed = self._noises(episode, theta.numel(), truncation)
        policies = policy.population(perturbed(theta, noise, self.sigma))
        first = runs.step
        losses = runs.advance_to(stop, policies, episode.final_weight).view(2, -1)
        episode.done = runs.step == episode.inner.total_steps
        difference = losses[0] - losses[1]
        gradient = antithetic_gradient(squashed(difference, difference, self.squash), weighed, self.sigma)
        return Estimate(gradient, losses, losses.numel() * (runs.step - first))


@dataclass(frozen=True)
class PES(_TruncatedES):
    """Estimates the gradient by persistent evolution strategies (Vicol et al. 2021, algorithm 2).

    Each truncation has noise of its own, and its loss weighs the sum of all noise so far: unbiased for any number of
    truncations, with a variance that grows with it.
    """

    def _noises(self, episode: Episode, size: int, truncation: int) -> tuple[Tensor, Tensor]:
        noise = episode.noise(size, truncation)
        episode.carried["sum"] = episode.carried.get("sum", torch.zeros_like(noise)) + noise
        return noise, episode.carried["sum"]


@dataclass(frozen=True)
class NRES(_TruncatedES):
    """Estimates the gradient by noise-reuse evolution strategies (Li et al. 2023, algorithm 3).

    All truncations of a run share one perturbation.
    """

    def _noises(self, episode: Episode, size: int, truncation: int) -> tuple[Tensor, Tensor]:
        noise = episode.noise(size)
        return noise, noise
