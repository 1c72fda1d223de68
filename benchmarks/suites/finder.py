"""Lightning's learning-rate finder, on a problem of a suite."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.tuner import Tuner
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.suites.problem import Problem
from benchmarks.suites.training import make_optimizer, trainable

BATCHES = 100
"""That Lightning's `lr_find` trains on by default."""


class _Module(L.LightningModule):
    def __init__(self, problem: Problem, optimizer: str, lr: float) -> None:
        super().__init__()
        self.problem, self.optimizer, self.lr = problem, optimizer, lr
        self.network = problem.model

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.problem.loss()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return make_optimizer(self.optimizer, trainable(self.network), self.lr)


def find_rate(problem: Problem, optimizer: str, usual: float) -> float:
    """Finds a rate as a user of Lightning does: `Tuner.lr_find` with its defaults (Smith 2017).

    Args:
        problem: is used up: its weights and batches are others afterwards.
        optimizer: as `Setting` names it.
        usual: rate that is kept where Lightning suggests none, as it leaves a module's rate then.
    """
    module = _Module(problem, optimizer, usual)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = L.Trainer(
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        Tuner(trainer).lr_find(module, train_dataloaders=DataLoader(range(BATCHES)), num_training=BATCHES)
    return float(module.lr)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Lightning's advice back, which does not concern a hundred batches: more workers, a logger."""
    log = logging.getLogger("lightning.pytorch")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
