"""Delays LearningRateMonitor, which would sample before MetaLRCallback's decision, until the rate is set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from metalr.lightning.hooks import ReplacedHooks
from metalr.lightning.packages import instances

if TYPE_CHECKING:
    import lightning as L


class DeferredMonitors:
    """Lets a Trainer's LearningRateMonitors sample once a step's rate is set.

    They sample when a batch or an epoch starts, which is right for a scheduler, whose rate is set by then. A rate that
    is set between the backward pass and the update would be logged one step late. So while a fit lasts their hooks
    are silenced, and called when the rate is set: a monitor of steps at each step, one of epochs at an epoch's first.
    """

    def __init__(self, trainer: L.Trainer, hooks: ReplacedHooks) -> None:
        self._monitors = instances(trainer, "callbacks.LearningRateMonitor")
        self._epoch = -1
        for monitor in self._monitors:
            hooks.replace(monitor, "on_train_batch_start", _nothing)
            hooks.replace(monitor, "on_train_epoch_start", _nothing)

    def sample(self, trainer: L.Trainer) -> None:
        """Samples the rates of a step, when they have been set."""
        for monitor in self._monitors:
            if monitor.logging_interval != "epoch":
                type(monitor).on_train_batch_start(monitor, trainer)
            elif trainer.current_epoch != self._epoch:
                type(monitor).on_train_epoch_start(monitor, trainer)
        self._epoch = trainer.current_epoch


def _nothing(*_: Any, **__: Any) -> None:
    """Stands in for a hook, and does nothing."""
