"""The region of feature space that a policy was meta-trained on, and how far outside it a step lies."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metalr.core.backend import Array, largest, namespace
from metalr.core.features import CLIP

QUANTILE = 0.999
"""Share of the meta-training's states that lies within each bound of a region."""

_LEAST_MARGIN = 0.25
_RIDGE = 1e-2


class Support(NamedTuple):
    """A region of the F features that a policy reads: a box, and an ellipsoid within it.

    Features are clipped, so a box alone sees little; what tells a strange state is features that are ordinary each
    and never came together, which the Mahalanobis distance sees.

    Attributes:
        ranges: low and high of each feature, in [-3, 3]. Shape (F, 2).
        centre: mean. Shape (F,).
        whitener: inverse of a Cholesky factor of the covariance; zero where the ellipsoid is not known. Shape (F, F).
        reach: Mahalanobis distance of the ellipsoid's rim. Shape ().
    """

    ranges: Array
    centre: Array
    whitener: Array
    reach: Array

    @classmethod
    def everywhere(cls, features: int) -> Support:
        """All of feature space: nothing is strange."""
        ranges = torch.tensor([[-CLIP, CLIP]]).repeat(features, 1)
        return cls(ranges, torch.zeros(features), torch.zeros(features, features), torch.ones(()))

    @classmethod
    def of(cls, states: Tensor) -> Support:
        """The region that holds all but a thousandth of the states by each of its bounds.

        Args:
            states: feature vectors of N steps, (N, F).

        Raises:
            ValueError: for fewer than 1,000 states, of which no thousandth can be told, or any that is not finite.
        """
        if states.dim() != 2 or len(states) < 1000 or not bool(torch.isfinite(states).all()):
            raise ValueError(f"states has shape {tuple(states.shape)}: give 1,000 or more finite feature vectors")
        states = states.double().cpu()
        ordered = states.sort(0).values
        last = round(QUANTILE * (len(states) - 1))
        ranges = torch.stack((ordered[len(states) - 1 - last], ordered[last]), dim=1)
        centre = states.mean(0)
        covariance = states.T.cov().reshape(2 * (states.shape[1],)) + _RIDGE * torch.eye(states.shape[1])
        whitener = torch.linalg.inv(torch.linalg.cholesky(covariance))
        reach = ((states - centre) @ whitener.T).norm(dim=1).sort().values[last]
        return cls(*(part.float() for part in (ranges, centre, whitener, reach)))

    @property
    def is_bounded(self) -> bool:
        """Whether anything at all lies outside of it; waits for the device."""
        return bool((self.whitener != 0).any()) or float(abs(self.ranges).min()) < CLIP

    def out_of_distribution_score(self, features: Array) -> Array:
        """How far outside it features (R, F) lie, in [0, 1], shape (R,).

        0 within the region and near it, as some states of a healthy run lie just outside of some bound: up to half of
        its range's width (or 0.25, if that is more) for a feature, and twice the ellipsoid's distance from the
        centre. 1 at twice as far outside. A fade that comes sooner does harm: a gradient that grows as it seldom did
        in meta-training is what the policy answers by bringing the rate down.
        """
        low, high = self.ranges[:, 0], self.ranges[:, 1]
        margin = ((high - low) / 2.0).clip(_LEAST_MARGIN)
        beyond = largest(namespace(features).maximum(low - features, features - high) / margin)
        xp = namespace(beyond)
        distance = xp.sqrt(xp.square((features - self.centre) @ self.whitener.T).sum(-1))
        outside = xp.maximum(beyond, distance / self.reach - 1.0)
        return xp.clip(outside - 1.0, 0.0, 1.0)
