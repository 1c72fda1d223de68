"""The callback that a cell of a grid adds to an ordinary `fit`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Checkpoint
from torch.optim import Optimizer

from metalr.compare.files import write_text
from metalr.lightning.logged_metrics import check_logged
from metalr.lightning.stopwatch import Stopwatch

CHECKPOINT = "resume.ckpt"
"""In a cell's folder: the state at the end of the last whole epoch."""
PROGRESS = "progress.json"
"""In a cell's folder: how far the run is."""


class CellCallback(Checkpoint):
    """Makes runs comparable and resumable: epochs seeded by number, rate and time logged, a checkpoint an epoch.

    Every epoch starts from a seed that is made of the run's and the epoch's number. So the batches of an epoch are
    the same for every schedule, whatever a schedule draws, and a resumed run has the batches of one that ran
    through. Logged with the training loss: `compare/lr`, the first group's rate in that step; `compare/seconds`,
    those since training began, validation included, and those before a resumption.

    It stands last among the callbacks, as Lightning keeps checkpoints: after whatever sets the rate. It needs a
    logger with a `save_dir`, the cell's folder, and a run's seed by `seed_everything`.

    Args:
        metrics: names that the validation must log; looked for after the sanity check, before any training.
        train_loss: name that the training steps must log; looked for after the first; None for any or none.
        every: seconds between two notes of the progress.

    Raises:
        ValueError: without a seed; on fit, without a logger, or where a metric is not logged.
    """

    def __init__(self, metrics: Sequence[str] = (), train_loss: str | None = None, every: float = 1.0) -> None:
        if "PL_GLOBAL_SEED" not in os.environ:
            raise ValueError("CellCallback needs the run's seed: give --seed_everything, or call seed_everything(seed)")
        self.seed = int(os.environ["PL_GLOBAL_SEED"])
        self.metrics = list(metrics)
        self.train_loss = train_loss
        self.every = every
        self._epoch = 0
        self._lr = float("nan")
        self._watch = Stopwatch()
        self._noted = time.monotonic()
        self._resumed = self._checked = False
        self._total: int | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuses a Trainer without a logger that has a folder."""
        if trainer.logger is None or trainer.logger.save_dir is None:
            raise ValueError("CellCallback needs trainer.logger with a save_dir, such as TensorBoardLogger(<folder>)")
        self.folder = Path(trainer.logger.save_dir)

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks for the metrics; those of several loaders Lightning shows at the first validation only."""
        if len(trainer.num_val_batches) == 1:
            check_logged(trainer, self.metrics, "validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks for the metrics where there was no sanity check."""
        if not trainer.sanity_checking:
            check_logged(trainer, self.metrics, "validation")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock."""
        self._watch.start()
        total = trainer.estimated_stepping_batches
        self._total = None if total in (-1, float("inf")) else int(total)
        self._note(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Seeds the epoch."""
        if not self._resumed:  # else `load_state_dict` did, before the loader's iterator was made
            self._seed(trainer.current_epoch)
        self._resumed = False

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Reads the rate."""
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Logs rate and time at the Trainer's `log_every_n_steps`; looks for the training loss."""
        if self.train_loss is not None and not self._checked:
            check_logged(trainer, [self.train_loss], "training")
            self._checked = True
        if trainer._logger_connector.should_update_logs:
            step = trainer.fit_loop.epoch_loop._batches_that_stepped
            for logger in trainer.loggers:
                logger.log_metrics({"compare/lr": self._lr, "compare/seconds": self._watch.seconds}, step=step)
        if time.monotonic() - self._noted >= self.every:
            self._note(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the checkpoint, after the logs that it must not be ahead of."""
        if flush := getattr(getattr(trainer.logger, "experiment", None), "flush", None):
            flush()
        trainer.save_checkpoint(self.folder / CHECKPOINT)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Notes the end."""
        self._note(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Returns the seconds so far, and the epoch that comes next."""
        return {"seconds": self._watch.seconds, "epoch": self._epoch + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues the clock, and seeds the epoch to come."""
        self._watch.resume(state_dict["seconds"])
        self._seed(state_dict["epoch"])
        self._resumed = True

    def _seed(self, epoch: int) -> None:
        self._epoch = epoch
        mixed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        L.seed_everything(mixed, workers=True, verbose=False)

    def _note(self, trainer: L.Trainer) -> None:
        self._noted = time.monotonic()
        if trainer.is_global_zero:
            batches = trainer.num_training_batches
            epoch = None if batches == float("inf") else max(1, int(batches) // trainer.accumulate_grad_batches)
            note = {"step": trainer.global_step, "total": self._total, "epoch": epoch, "seconds": self._watch.seconds}
            write_text(self.folder / PROGRESS, json.dumps(note))
