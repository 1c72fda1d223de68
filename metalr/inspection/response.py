"""How a policy's increment depends on each feature, around states that it comes to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalr.core.features import CLIP
from metalr.core.policy import LRPolicy

QUANTILES = (0.1, 0.5, 0.9)
"""Of the states, at each point of a curve."""

_STATES = 256


@dataclass(frozen=True)
class Responses:
    """The response of a policy's increment to each of its F features, at G points each.

    The increment is given as its share of the bound, tanh(policy), in [-1, 1]: the bound itself falls over a run.

    Attributes:
        features: names.
        grid: values of the feature, ascending, (F, G).
        curves: quantiles over the states of the increment with this feature at that value and all others as they
            are, (F, len(QUANTILES), G).
        seen: least, lower tenth, median, upper tenth and greatest value among the states, (F, 5).
    """

    features: tuple[str, ...]
    grid: NDArray[np.float64]
    curves: NDArray[np.float64]
    seen: NDArray[np.float64]

    @property
    def swings(self) -> NDArray[np.float64]:
        """Greatest less least of each median curve, (F,)."""
        middle = self.curves[:, 1]
        swings: NDArray[np.float64] = middle.max(1) - middle.min(1)
        return swings


@torch.no_grad()
def responses(policy: LRPolicy, states: Tensor, points: int = 41, whole: bool = False) -> Responses:
    """Moves one feature at a time through its range, with the others as they are in each state.

    These are the curves of individual conditional expectation (Goldstein et al. 2015) and their quantiles.

    Args:
        policy: that is asked.
        states: features that the policy reads, (N, F).
        points: G of each curve.
        whole: over all of [-3, 3], in place of the range that the states have.

    Raises:
        ValueError: for no states, or states of another number of features.
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
        changes = policy.action(moved.flatten(0, 1)).detach().tanh().view(points, -1)
        curves.append(np.quantile(changes.double().cpu().numpy(), QUANTILES, axis=1))
        grids.append(grid.double().numpy())
    seen = np.quantile(own, (0.0, 0.1, 0.5, 0.9, 1.0), axis=0).T
    return Responses(policy.features, np.array(grids), np.array(curves), seen)


def known_states(policy: LRPolicy, count: int = _STATES, seed: int = 0) -> Tensor:
    """States as the policy's meta-training had them, (count, F): normal with its mean and covariance, in its ranges.

    A policy whose meta-training is not known has states that are uniform in [-3, 3].
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
    if "optimizer" in policy.features:  # it is one or the other
        states[:, policy.features.index("optimizer")].sign_()
    made: Tensor = states
    return made


def _few(states: Tensor) -> Tensor:
    """At most so many of the states, evenly spaced."""
    if len(states) <= _STATES:
        return states
    return states[torch.linspace(0, len(states) - 1, _STATES).round().long()]


def _range(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of a feature's values, and a little more: one that never moved is shown about where it is."""
    low, high = float(values.min()), float(values.max())
    more = max(0.15 * (high - low), 0.15)
    return max(low - more, -CLIP), min(high + more, CLIP)
