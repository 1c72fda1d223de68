"""The region of feature space that a policy was meta-trained on, and how far outside of it a step lies."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from metalr.core.backend import TORCH, Backend, Number, Vector, to_host_vector
from metalr.core.features import CLIP

QUANTILE = 0.999
"""Share of the meta-training's states that lies within each bound of a region."""

_LEAST_MARGIN = 0.25
_RIDGE = 1e-2


class Region(NamedTuple):
    """Holds a box in the space of F features, and an ellipsoid within it, as a decision reads them.

    Attributes:
        low: of each feature, (F,).
        high: of each feature, (F,).
        margin: by which a feature may lie outside of the box and count for nothing, (F,).
        centre: of the ellipsoid, (F,).
        whitener: matrix that makes the ellipsoid a ball of `mahalanobis_radius`, (F, F).
        mahalanobis_radius: of the ellipsoid, ().
    """

    low: Vector
    high: Vector
    margin: Vector
    centre: Vector
    whitener: Vector
    mahalanobis_radius: Vector

    def out_of_distribution_score(self, xp: Backend, features: Vector) -> Number:
        """Scores how far outside of the region features (R, F) lie, in [0, 1], shape (R,).

        0 within the region and near it, as some states of a healthy run lie just outside of some bound: up to half of
        its range's width (or 0.25, if that is more) for a feature, and twice the Mahalanobis radius. 1 at twice as far
        outside. A fade that comes sooner does harm: a gradient that grows as it seldom did in meta-training is what
        the policy answers by bringing the rate down.
        """
        beyond = xp.largest_excess(features, self.low, self.high, self.margin)
        distance = xp.distance(features, self.centre, self.whitener)
        outside = xp.maximum(beyond, xp.over(distance, self.mahalanobis_radius) - 1.0)
        return xp.clip(outside - 1.0, 0.0, 1.0)


class Support(nn.Module):
    """Holds the region of the F features that a policy reads; it is a part of the policy and of its state dict.

    Features are clipped, so their ranges alone exclude little. In an unseen state, features are often ordinary one by
    one and never occurred together, which the Mahalanobis distance measures.

    Args:
        features: F.

    Attributes:
        ranges: low and high of each feature, in [-3, 3]; all of that until `learn`. Shape (F, 2).
        centre: mean. Shape (F,).
        whitener: inverse of a Cholesky factor of the covariance; zero until `learn`. Shape (F, F).
        mahalanobis_radius: Mahalanobis distance of the ellipsoid's rim from its centre. Shape ().
    """

    ranges: Tensor
    centre: Tensor
    whitener: Tensor
    mahalanobis_radius: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("ranges", torch.tensor([[-CLIP, CLIP]]).repeat(features, 1))
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("whitener", torch.zeros(features, features))
        self.register_buffer("mahalanobis_radius", torch.ones(()))

    @torch.no_grad()
    def learn(self, states: Tensor) -> None:
        """Becomes the region that holds all but a thousandth of the states by each of its bounds.

        Args:
            states: feature vectors of N steps, (N, F).

        Raises:
            ValueError: for fewer than 1,000 states, too few for a thousandth, or any that is not finite.
        """
        if states.dim() != 2 or len(states) < 1000 or not bool(torch.isfinite(states).all()):
            raise ValueError(f"states has shape {tuple(states.shape)}: give 1,000 or more finite feature vectors")
        states = states.double().cpu()
        ordered = states.sort(0).values
        last = round(QUANTILE * (len(states) - 1))
        centre = states.mean(0)
        covariance = states.T.cov().reshape(2 * (states.shape[1],)) + _RIDGE * torch.eye(states.shape[1])
        whitener = torch.linalg.inv(torch.linalg.cholesky(covariance))
        distances = ((states - centre) @ whitener.T).norm(dim=1)
        self.ranges.copy_(torch.stack((ordered[len(states) - 1 - last], ordered[last]), dim=1))
        self.centre.copy_(centre)
        self.whitener.copy_(whitener)
        self.mahalanobis_radius.copy_(distances.sort().values[last])

    @property
    def is_bounded(self) -> bool:
        """Whether anything at all lies outside of it; waits for the device."""
        return bool((self.whitener != 0).any()) or float(abs(self.ranges).min()) < CLIP

    def out_of_distribution_score(self, features: Tensor) -> Tensor:
        """Scores features (R, F); see `Region.out_of_distribution_score`."""
        return cast(Tensor, self.region(features.device).out_of_distribution_score(TORCH, features))

    def region(self, device: torch.device | None) -> Region:
        """Copies the region to where decisions are taken: a device, or the host (None)."""
        low, high = (self.ranges.double() if device is None else self.ranges).unbind(1)  # the margin in full precision
        margin = (high - low).div(2.0).clip(_LEAST_MARGIN)
        parts = (low, high, margin, self.centre, self.whitener, self.mahalanobis_radius)
        if device is None:
            return Region(*map(to_host_vector, parts))
        return Region(*(part.detach().to(device, copy=True) for part in parts))
