"""The response of a policy to each feature: the change that it makes, with the other features as in given states."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalr.core.features import CLIP
from metalr.core.policy import LRPolicy

QUANTILES = (0.1, 0.5, 0.9)
"""Quantiles over the states, at each point of a curve."""

_STATES = 256


@dataclass(frozen=True)
class Responses:
    """Holds the response of a policy to each of its F features, at G points each.

    A response is the change of the log multiplier as a share of its bound, tanh(policy), in [-1, 1]: the bound itself
    falls over a run.

    Attributes:
        features: names of the features.
        grid: values of each feature, ascending, (F, G).
        curves: quantiles over the states of the response, with this feature at that value and all others as they are,
            (F, len(QUANTILES), G).
        seen: minimum, first decile, median, last decile and maximum of each feature among the states, (F, 5).
    """

    features: tuple[str, ...]
    grid: NDArray[np.float64]
    curves: NDArray[np.float64]
    seen: NDArray[np.float64]

    @property
    def swings(self) -> NDArray[np.float64]:
        """Range (maximum - minimum) of each median curve, in [0, 2], (F,)."""
        middle = self.curves[:, 1]
        swings: NDArray[np.float64] = middle.max(1) - middle.min(1)
        return swings


@torch.no_grad()
def responses(policy: LRPolicy, states: Tensor, points: int = 41, whole: bool = False) -> Responses:
    """Computes a policy's response to each feature, moved through its range with the others as they are in each state.

    The curves are quantiles of those of individual conditional expectation (Goldstein et al. 2015).

        policy = LRPolicy.load("default")
        found = responses(policy, support_states(policy))
        strongest = found.features[found.swings.argmax()]

    Args:
        policy: whose response is computed.
        states: values of the features that the policy reads, (N, F); of more than 256, 256 evenly spaced ones are used.
        points: number G of points of each curve.
        whole: whether the curves span all of [-3, 3] rather than the range of the states.

    Raises:
        ValueError: for no states, or states with another number of features.
    """
    if states.dim() != 2 or states.shape[1] != len(policy.features) or len(states) == 0:
        raise ValueError(f"states has shape {tuple(states.shape)}: give (N, {len(policy.features)}), N at least 1")
    states = _few(states).to(policy.columns.device).float()
    own = states.double().cpu().numpy()
    grids, curves = [], []
    for column in range(states.shape[1]):
        low, high = (-CLIP, CLIP) if whole else _range(own[:, column])
        grid = torch.linspace(low, high, points)
        moved = states.repeat(points, 1, 1)
        moved[:, :, column] = grid.to(states)[:, None]
        changes = policy.action(moved.flatten(0, 1)).tanh().view(points, -1)
        curves.append(np.quantile(changes.double().cpu().numpy(), QUANTILES, axis=1))
        grids.append(grid.double().numpy())
    seen = np.quantile(own, (0.0, 0.1, 0.5, 0.9, 1.0), axis=0).T
    return Responses(policy.features, np.array(grids), np.array(curves), seen)


def support_states(policy: LRPolicy, count: int = _STATES, seed: int = 0) -> Tensor:
    """Samples states like those of the policy's meta-training: normal with their mean and covariance, in their ranges.

    For a policy whose file does not record them, the states are uniform in [-3, 3].

    Args:
        policy: whose `support` describes the states.
        count: number of states.
        seed: of the samples.

    Returns:
        Values of the features that the policy reads, (count, F).
    """
    generator = torch.Generator().manual_seed(seed)
    support = policy.support
    low, high = support.ranges.cpu().unbind(1)
    whitener = support.whitener.cpu().double()
    if bool((whitener == 0).all()):
        states = low + (high - low) * torch.rand(count, len(low), generator=generator)
    else:
        noise = torch.randn(count, len(low), generator=generator)
        states = (support.centre.cpu() + noise @ torch.linalg.inv(whitener).T.float()).clip(low, high)
    if "optimizer" in policy.features:  # -1 or +1, nothing in between
        states[:, policy.features.index("optimizer")].sign_()
    made: Tensor = states
    return made


def _few(states: Tensor) -> Tensor:
    """Selects at most `_STATES` of the states, evenly spaced."""
    if len(states) <= _STATES:
        return states
    return states[torch.linspace(0, len(states) - 1, _STATES).round().long()]


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the range of a feature's values with a margin, so that one that never moved has a range, too."""
    low, high = float(values.min()), float(values.max())
    more = max(0.15 * (high - low), 0.15)
    return max(low - more, -CLIP), min(high + more, CLIP)
