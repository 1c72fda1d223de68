"""LearningRateMonitor beside MetaLRCallback: it samples before the decision, and has to after."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import LearningRateMonitor

_HOOKS = ("on_train_batch_start", "on_train_epoch_start")


class DeferredMonitors:
    """Lets a Trainer's LearningRateMonitors sample once a step's rate is set.

    They sample when a batch or an epoch starts, which is right for a scheduler, whose rate stands by then. A rate that
    is set between the backward pass and the update would be logged one step late. So while a fit lasts their hooks
    are silenced, and called when the rate stands: a monitor of steps at each step, one of epochs at an epoch's first.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self._monitors = [callback for callback in callbacks if isinstance(callback, LearningRateMonitor)]
        self._epoch = -1
        for monitor in self._monitors:
            vars(monitor).update(dict.fromkeys(_HOOKS, _nothing))

    def sample(self, trainer: L.Trainer) -> None:
        """Called when the rate of a step has been set."""
        for monitor in self._monitors:
            if monitor.logging_interval != "epoch":
                type(monitor).on_train_batch_start(monitor, trainer)
            elif trainer.current_epoch != self._epoch:
                type(monitor).on_train_epoch_start(monitor, trainer)
        self._epoch = trainer.current_epoch

    def release(self) -> None:
        """Gives them their own hooks back."""
        for monitor in self._monitors:
            for hook in _HOOKS:
                vars(monitor).pop(hook, None)


def _nothing(*_: Any, **__: Any) -> None:
    """A hook that is silenced."""
