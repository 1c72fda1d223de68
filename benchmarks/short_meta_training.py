"""A short meta-training of a benchmark that compares policies of equal budgets: no logs, no checks, no checkpoints."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning as L
import torch

from metalr.meta import MetaLearner, MetaTasksDataModule


def meta_train(data: MetaTasksDataModule, meta_steps: int, **options: Any) -> MetaLearner:
    """Makes a policy by Adam at a rate that falls to zero.

    Args:
        data: task batches.
        meta_steps: number of them.
        options: of `MetaLearner`.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    learner = MetaLearner(
        optimizer=lambda params: torch.optim.Adam(params, lr=3e-3, betas=(0.9, 0.99)),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, meta_steps),
        **options,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=meta_steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, data)
    return learner
