"""RunTable: a run's row in TensorBoard's table of hyperparameters and final metrics."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning as L
from torch.optim import Optimizer

from metalr import MetaLRCallback
from metalr.inspection.convergence_speed import ConvergenceSpeed
from metalr.inspection.tensorboard_events import write_run
from metalr.inspection.trainer import callbacks_of, tensorboard

_OWN = ("weight_decay", "momentum")


class RunTable(L.Callback):
    """Writes a run's hyperparameters and final metrics as a row, so that TensorBoard's HParams tab compares runs.

    The columns are the schedule, the optimizer and its initial rate, the batch size, the seed, the number of steps, the
    model, the data, whatever the model saved with `save_hyperparameters`, and `more`. The metrics are the last values
    of everything the module logged, and the steps to the thresholds of a `ConvergenceSpeed` in the same Trainer. The
    row is written to `<log folder>/table` when training ends.

        trainer = L.Trainer(max_epochs=3, callbacks=[MetaLRCallback(), RunTable({"note": "first try"})])

    Args:
        more: further columns by name.

    Raises:
        ValueError: on fit, for a Trainer without a TensorBoardLogger.
    """

    def __init__(self, more: dict[str, float | int | str | bool] | None = None) -> None:
        self.more = dict(more or {})

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Finds the logger, and turns off its own row of hyperparameters, which has no metrics."""
        if stage == "fit":
            tensorboard(trainer, self)._default_hp_metric = False

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the row."""
        if not trainer.is_global_zero:
            return
        logged = trainer.callback_metrics.items()
        metrics = {name: float(value) for name, value in logged if not name.startswith("lr-")}  # a monitor's
        for speed in callbacks_of(trainer, ConvergenceSpeed):
            metrics |= {f"steps_to/{mark.label}": float(mark.step) for mark in speed.marks}
        folder = Path(tensorboard(trainer, self).log_dir) / "table"
        write_run(str(folder), described(trainer, pl_module) | self.more, metrics, trainer.global_step)


def described(trainer: L.Trainer, module: L.LightningModule) -> dict[str, Any]:
    """Collects a run's hyperparameters by name."""
    optimizer, data = trainer.optimizers[0], getattr(trainer, "datamodule", None)
    saved = {k: v for k, v in module.hparams.items() if isinstance(v, (bool, int, float, str))}
    return saved | {
        "schedule": _schedule(trainer),
        "optimizer": type(optimizer).__name__,
        "lr": _initial_lr(trainer, optimizer),
        **{name: optimizer.defaults[name] for name in _OWN if isinstance(optimizer.defaults.get(name), (int, float))},
        "batch_size": getattr(trainer.train_dataloader, "batch_size", None) or 0,
        "steps": trainer.global_step,
        "seed": int(os.environ.get("PL_GLOBAL_SEED", -1)),
        "model": type(module).__name__,
        "data": "dataloaders" if data is None else type(data).__name__,
    }


def _meta_lr(trainer: L.Trainer) -> MetaLRCallback | None:
    return next(iter(callbacks_of(trainer, MetaLRCallback)), None)


def _schedule(trainer: L.Trainer) -> str:
    if _meta_lr(trainer) is not None:
        return "metalr"
    if not trainer.lr_scheduler_configs:
        return "none"
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    return str(getattr(scheduler, "shape", type(scheduler).__name__))  # HorizonLR has a shape


def _initial_lr(trainer: L.Trainer, optimizer: Optimizer) -> float:
    callback, group = _meta_lr(trainer), optimizer.param_groups[0]
    return callback.controllers[0].base_lrs[0] if callback else float(group.get("initial_lr", group["lr"]))
