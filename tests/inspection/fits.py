"""Small fits of a Trainer with TensorBoard, and what they logged."""

from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.compare.problem import Line, Points


def fit(folder: Path, *callbacks: L.Callback, epochs: int = 3, ckpt_path=None, **options) -> L.Trainer:
    L.seed_everything(0, verbose=False)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=TensorBoardLogger(folder, name="fit"),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=50,
        **options,
    )
    trainer.fit(Line(), Points(), ckpt_path=ckpt_path)
    return trainer


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return found
