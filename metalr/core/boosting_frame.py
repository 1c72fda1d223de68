"""Normalises margins so that the policy does not depend on the labels' origin and unit.

The policy reads the size of an update relative to that of the margins. In a binary classification margins are log odds;
those of other objectives begin anywhere: at zero in a ranking, at a price of 10,000 in a regression.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

DISTANCE = 4.0
"""Units between the origin and where a training begins, a log odds of 2 percent. Nearer, rates are cut early on."""

LOG_ODDS = frozenset({"binary:logistic", "binary:logitraw", "reg:logistic"})
"""Objectives whose margins are taken as they are."""

IN_LABELS_UNIT = frozenset(
    {
        "reg:absoluteerror",
        "reg:linear",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "reg:squarederror",
        "reg:squaredlogerror",
    }
)
"""Objectives whose margins have the labels' unit; those of the others are logs or scores, of unit 1."""


@dataclass(frozen=True)
class Frame:
    """Places margins m at (m - start) / unit + distance.

    Attributes:
        start: margins at the start of the training, (N,) or (N, K).
        unit: above 0; of several trainings, (R, 1).
        distance: in units; None for margins as they are.
    """

    start: Tensor
    unit: float | Tensor = 1.0
    distance: float | None = DISTANCE

    def place(self, margins: Tensor) -> Tensor:
        """Returns margins of the start's shape, as the policy sees them."""
        return margins if self.distance is None else (margins - self.start) / self.unit + self.distance


def frame_of(objective: str, labels: Tensor, margins: Tensor) -> Frame:
    """Returns the frame of a built-in objective.

    Args:
        objective: its name.
        labels: of the training rows.
        margins: at its start.
    """
    if objective in LOG_ODDS:
        return Frame(margins, distance=None)
    unit = float(labels.std(correction=0)) if objective in IN_LABELS_UNIT else 1.0
    return Frame(margins, unit or 1.0)


def newton_frame(margins: Tensor, gradient: Tensor, hessian: Tensor) -> Frame:
    """Returns the frame of an objective of one's own: its unit is the size of the first Newton step.

    Args:
        margins: at the start.
        gradient: of the rows' summed loss there, in the same shape.
        hessian: likewise; where its mean is not above 0, the unit is 1.
    """
    curvature = float(hessian.mean())
    unit = float(gradient.square().mean().sqrt()) / curvature if curvature > 0.0 else 1.0
    return Frame(margins, unit if 0.0 < unit < float("inf") else 1.0)
