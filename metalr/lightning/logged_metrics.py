"""Metrics that a LightningModule logs: whether one is there, and whether its value reaches a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lightning as L


def check_logged(trainer: L.Trainer, names: Sequence[str], stage: str) -> None:
    """Checks that the module has logged metrics of these names.

    Args:
        trainer: whose `callback_metrics` are looked at.
        names: of the metrics.
        stage: "training" or "validation", for the message.

    Raises:
        ValueError: for a metric that has not been logged; it lists those that have.
    """
    logged = sorted(trainer.callback_metrics)
    if unknown := [name for name in names if name not in logged]:
        raise ValueError(f"metric {', '.join(unknown)} is not logged in {stage}: choose of {', '.join(logged)}")


def reaches(value: float, threshold: float, mode: str) -> bool:
    """Returns whether a value is at least as good as the threshold; NaN never is.

    Args:
        value: of the metric.
        threshold: to be reached.
        mode: "min" where less is better, "max" where more is.
    """
    return value <= threshold if mode == "min" else value >= threshold
