"""GradientMoments: signal and noise of gradient estimates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SignalNoise(NamedTuple):
    """Signal and noise of one estimate g of a gradient.

    Attributes:
        signal: |E g|^2, estimated without bias, and so below zero about half of the time where there is no signal.
        noise: trace of the covariance of g.
    """

    signal: float
    noise: float

    @property
    def ratio(self) -> float:
        """Signal over noise, which does not depend on an estimator's scale."""
        return self.signal / self.noise if self.noise > 0 else float("inf")


class GradientMoments:
    """Measures signal and noise of a stream of estimates; older ones weigh less.

    With weights w_i that sum to 1, m = sum w_i g_i, q = sum w_i |g_i|^2 and c = sum w_i^2, of independent estimates

        E |m|^2 = signal + c noise,    E q = signal + noise,

    which are solved for both. Changes of the mean while the policy learns count as noise.

    Args:
        window: time constant of the weights in estimates, > 1: a weight falls by 1 - 1/window with each later
            estimate; None for equal weights.

    Raises:
        ValueError: for a window of 1 or less.
    """

    def __init__(self, window: float | None = None) -> None:
        if window is not None and window <= 1:
            raise ValueError(f"window={window}: give a number above 1, or None for equal weights")
        self._window = window
        self.count = 0
        self._mean: Tensor | None = None
        self._square = self._concentration = 0.0

    def add(self, gradient: Tensor) -> None:
        """Adds an estimate, (n,)."""
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
        """Returns signal and noise of one estimate.

        Raises:
            ValueError: before the second estimate.
        """
        if self._mean is None or self.count < 2:
            raise ValueError(f"{self.count} estimates: add two or more before their noise is measured")
        size, share = float(self._mean.square().sum()), self._concentration
        noise = (self._square - size) / (1.0 - share)
        return SignalNoise(size - share * noise, noise)
