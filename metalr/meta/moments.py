"""Signal and noise of gradient estimates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SignalNoise(NamedTuple):
    """Of one estimate: |E g|^2, and the trace of the covariance of g.

    The signal has no bias, so of nothing but noise it is as often below zero as above.
    """

    signal: float
    noise: float

    @property
    def ratio(self) -> float:
        """Signal over noise; what counts, as an estimator's scale does not."""
        return self.signal / self.noise if self.noise > 0 else float("inf")


class GradientMoments:
    """Signal and noise of a stream of estimates, the older the less they weigh.

    With weights w_i that sum to 1, m = sum w_i g_i, q = sum w_i |g_i|^2 and c = sum w_i^2, of independent estimates

        E |m|^2 = signal + c noise,    E q = signal + noise,

    which gives both. What the mean moves while the policy learns counts as noise.

    Args:
        window: estimates that weigh something: weights fall by 1 - 1/window an estimate; None for equal weights.
    """

    def __init__(self, window: float | None = None) -> None:
        if window is not None and window <= 1:
            raise ValueError(f"window={window}: give more than one estimate, or None for all of them alike")
        self._window = window
        self.count = 0
        self._mean: Tensor | None = None
        self._square = self._concentration = 0.0

    def add(self, gradient: Tensor) -> None:
        """Takes in an estimate, (n,)."""
        gradient = gradient.detach().double()
        self.count += 1
        weight = self._newest_weight()
        before = torch.zeros_like(gradient) if self._mean is None else self._mean
        self._mean = before + weight * (gradient - before)
        self._square += weight * (float(gradient.square().sum()) - self._square)
        self._concentration = (1 - weight) ** 2 * self._concentration + weight**2

    def _newest_weight(self) -> float:
        if self._window is None:
            return 1.0 / self.count
        kept = 1.0 - 1.0 / self._window
        return (1.0 - kept) / (1.0 - kept**self.count)

    def signal_noise(self) -> SignalNoise:
        """Of one estimate.

        Raises:
            ValueError: before the second estimate.
        """
        if self._mean is None or self.count < 2:
            raise ValueError(f"{self.count} estimates: of fewer than two nothing can be told")
        size, share = float(self._mean.square().sum()), self._concentration
        noise = (self._square - size) / (1.0 - share)
        return SignalNoise(size - share * noise, noise)
