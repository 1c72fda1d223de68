"""Looks up a Trainer's TensorBoard logger and its other callbacks."""

from __future__ import annotations

from typing import TypeVar

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger

C = TypeVar("C", bound=L.Callback)


def tensorboard(trainer: L.Trainer, who: object) -> TensorBoardLogger:
    """Returns the first TensorBoardLogger of a Trainer.

    Args:
        trainer: whose loggers are searched.
        who: callback that needs it, for the message.

    Raises:
        ValueError: for a Trainer without one.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            return logger
    raise ValueError(f"{type(who).__name__} writes to TensorBoard: give trainer.logger a TensorBoardLogger")


def callbacks_of(trainer: L.Trainer, kind: type[C]) -> list[C]:
    """Returns the Trainer's callbacks of a class, in their order."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]
