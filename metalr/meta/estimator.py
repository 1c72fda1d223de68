"""Gradient estimators: from the losses of perturbed policies to a gradient of the policy's weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metalr.meta.distribution import mix_seed

_SQUASHES = ("none", "tanh", "sign")


def antithetic_gradient(weights: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """Antithetic evolution strategies: the mean over pairs of weight * noise / (2 sigma).

    With weight = L(theta + sigma eps) - L(theta - sigma eps) this is an unbiased estimate of the gradient of L
    smoothed by a Gaussian of width sigma (Nesterov and Spokoiny 2017, eq. 26).

    Args:
        weights: (P,), a pair's difference of losses, squashed or not.
        noise: eps, standard normal, (P, n).
        sigma: width of the smoothing.

    Returns:
        The gradient, (n,).
    """
    return weights @ noise / (2.0 * sigma * len(weights))


class GradientEstimator(ABC):
    """From a policy's weights to perturbed ones, and from their losses to a gradient.

    Attributes:
        pairs: P, antithetic pairs a meta-step, over all ranks. Both runs of a pair share initial parameters,
            batches and rate, so that only the policy sets them apart.
    """

    pairs: int

    @abstractmethod
    def noise(self, size: int, pairs: Sequence[int], *seed: int) -> Tensor:
        """Noise of some pairs, (len(pairs), size), from the seed and each pair's number alone."""

    @abstractmethod
    def perturb(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Weights of the policies of all pairs, one half after the other, (2 P, n)."""

    @abstractmethod
    def gradient(self, plus: Tensor, minus: Tensor, everyone: Tensor, noise: Tensor) -> Tensor:
        """The gradient, (n,), of one rank's pairs.

        Args:
            plus: losses of the first half of the rank's runs, (P,).
            minus: losses of the second half, (P,).
            everyone: losses of both halves of all ranks' pairs, (2, all pairs).
            noise: of the rank's pairs, (P, n).
        """


@dataclass(frozen=True)
class FullES(GradientEstimator):
    """Antithetic evolution strategies over whole inner runs (FullES).

    Attributes:
        pairs: P, antithetic pairs a step.
        sigma: width of the perturbation of the policy's weights.
        squash: what a pair's difference d passes through before it weighs the noise: "none", "sign", or "tanh" of
            d over the median |d|. Squashed, no family of tasks shouts, and the length of the gradient means
            nothing any more.
    """

    pairs: int = 32
    sigma: float = 0.05
    squash: str = "tanh"

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.pairs < 1 or self.sigma <= 0:
            raise ValueError(f"pairs={self.pairs}, sigma={self.sigma}: both must be positive")
        if self.squash not in _SQUASHES:
            raise ValueError(f"squash={self.squash!r}: choose one of {', '.join(_SQUASHES)}")

    def noise(self, size: int, pairs: Sequence[int], *seed: int) -> Tensor:
        """Standard normal."""
        generators = [torch.Generator().manual_seed(mix_seed(*seed, pair)) for pair in pairs]
        return torch.stack([torch.randn(size, generator=g) for g in generators])

    def perturb(self, theta: Tensor, noise: Tensor) -> Tensor:
        """Theta + sigma eps, then theta - sigma eps."""
        return torch.cat((theta + self.sigma * noise, theta - self.sigma * noise))

    def gradient(self, plus: Tensor, minus: Tensor, everyone: Tensor, noise: Tensor) -> Tensor:
        """`antithetic_gradient` of the squashed differences."""
        return antithetic_gradient(self.weights(everyone[0] - everyone[1], plus - minus), noise, self.sigma)

    def weights(self, difference: Tensor, own: Tensor) -> Tensor:
        """Squashed differences.

        Args:
            difference: L+ - L- of all pairs on all ranks; sets the scale.
            own: the same of the pairs to weigh.
        """
        if self.squash == "none":
            return own
        if self.squash == "sign":
            return own.sign()
        return torch.tanh(own / difference.abs().median().clamp_min(1e-12))
