"""Finds the TensorBoard logger that a callback writes to."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger


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
