"""ConvergenceSpeed: the steps and seconds that a run takes to reach thresholds of a validation metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning as L

from metalr.inspection.store import check_names
from metalr.inspection.trace import Reached
from metalr.lightning.logged_metrics import check_logged, reaches
from metalr.lightning.stopwatch import Stopwatch

_DECADES = 3


class ConvergenceSpeed(L.Callback):
    """Logs when a validation metric reaches thresholds, as `steps_to/<metric>_<threshold>` and `seconds_to/...`.

    The metric is read after each validation. Seconds count from the start of training, with validation and with the
    earlier part of a resumed run.

    Args:
        monitor: name of the metric.
        mode: "min" where less is better, "max" where more is.
        thresholds: values of the metric; None for the numbers 1, 2 and 5 times a power of ten between the metric's
            first value and its present one, over three decades (in mode "max", of its distance from 1). These are the
            same in all runs, so that runs can be compared.

    Attributes:
        reached: thresholds reached so far, each with the optimizer steps done.

    Raises:
        ValueError: for another mode or a threshold that is not finite; on fit, for a metric that is not logged.

    Example:
        >>> import lightning as L, torch
        >>> from metalr.inspection import ConvergenceSpeed
        >>> from lightning.pytorch.demos.boring_classes import BoringModel
        >>> class Model(BoringModel):
        ...     def validation_step(self, batch, batch_idx):
        ...         self.log("val/loss", self.step(batch))
        ...
        ...     def configure_optimizers(self):
        ...         return torch.optim.SGD(self.parameters(), lr=0.1)
        >>> speed = ConvergenceSpeed("val/loss", thresholds=[1e9])
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        >>> trainer = L.Trainer(accelerator="cpu", max_epochs=1, callbacks=[speed], **quiet)
        >>> trainer.fit(Model())
        >>> speed.reached
        [Reached(label='val/loss 1e+09', step=64)]
    """

    def __init__(self, monitor: str = "val/loss", mode: str = "min", thresholds: Sequence[float] | None = None) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode={mode!r}: choose 'min' or 'max'")
        if thresholds is not None and not all(math.isfinite(threshold) for threshold in thresholds):
            raise ValueError(f"thresholds={list(thresholds)}: give finite numbers")
        self.monitor = monitor
        self.mode = mode
        self.thresholds = None if thresholds is None else list(thresholds)
        self.reached: list[Reached] = []
        self._first: float | None = None
        self._watch = Stopwatch()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._watch.start()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the thresholds that the metric has reached since the last validation."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        check_logged(trainer, [self.monitor], "validation")
        value = float(trainer.callback_metrics[self.monitor])
        if self._first is None:
            self._first = value
        known = {each.label for each in self.reached}
        for threshold in self._between(value):
            label = f"{self.monitor} {threshold:.4g}"
            if reaches(value, threshold, self.mode) and label not in known:
                self._note(trainer, label, threshold)

    def state_dict(self) -> dict[str, Any]:
        """Returns the reached thresholds, the first value of the metric and the seconds so far."""
        reached = [tuple(each) for each in self.reached]
        return {"reached": reached, "first": self._first, "seconds": self._watch.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            ValueError: for the state of another version of metalr.
        """
        check_names(state_dict, self.state_dict(), "the state of ConvergenceSpeed")
        self.reached = [Reached(*each) for each in state_dict["reached"]]
        self._first = state_dict["first"]
        self._watch.resume(state_dict["seconds"])

    def _between(self, value: float) -> Sequence[float]:
        if self.thresholds is not None or self._first is None:
            return self.thresholds or ()
        if self.mode == "min":
            return round_numbers(value, self._first)
        return [1.0 - distance for distance in round_numbers(1.0 - value, 1.0 - self._first)]

    def _note(self, trainer: L.Trainer, label: str, threshold: float) -> None:
        step = trainer.global_step
        self.reached.append(Reached(label, step))
        name = f"{self.monitor}_{threshold:.4g}"
        for logger in trainer.loggers:
            logger.log_metrics({f"steps_to/{name}": step, f"seconds_to/{name}": self._watch.seconds}, step=step)


def round_numbers(low: float, high: float) -> list[float]:
    """Lists the numbers 1, 2 and 5 times a power of ten in [low, high), descending, down to three decades below `high`.

    The list is empty where `high` is not positive and finite, or `low` is NaN.
    """
    if not 0.0 < high < math.inf or math.isnan(low):
        return []
    low, top = max(low, high * 10.0**-_DECADES), math.floor(math.log10(high))
    numbers = [float(f"{digit}e{top - power}") for power in range(_DECADES + 1) for digit in (5, 2, 1)]
    return [number for number in numbers if low <= number < high]
