"""MetaLRCLI: the LightningCLI of `train.py`; anyone's own train script can use it with their models and data."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, LRSchedulerTypeUnion
from torch.optim import Optimizer

from metalr.schedules import HorizonLR


class MetaLRCLI(LightningCLI):
    """LightningCLI in which models and data are chosen by `class_path`, and several `--config` files merge.

    A learning-rate scheduler given by `--lr_scheduler` is stepped once an optimizer step, and a
    `metalr.schedules.HorizonLR` takes its horizon from the Trainer. The run's full configuration is stored beside
    its logs, also where that folder exists already (a resumed run).
    """

    def __init__(self, **kwargs: Any) -> None:
        defaults: dict[str, Any] = {
            "subclass_mode_model": True,
            "subclass_mode_data": True,
            "save_config_kwargs": {"overwrite": True},
            "seed_everything_default": 0,
        }
        super().__init__(**(defaults | kwargs))

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Logs as an experiment wants them; any of it can be set in YAML or on the command line."""
        parser.set_defaults({"trainer.log_every_n_steps": 10})

    @staticmethod
    def configure_optimizers(
        lightning_module: L.LightningModule,
        optimizer: Optimizer,
        lr_scheduler: LRSchedulerTypeUnion | None = None,
    ) -> Any:
        """The CLI's optimizer and scheduler, by steps rather than epochs."""
        if lr_scheduler is None:
            return optimizer
        if isinstance(lr_scheduler, HorizonLR) and lr_scheduler.total_steps is None:
            lr_scheduler.total_steps = _horizon(lightning_module.trainer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_scheduler, "interval": "step"}}


def _horizon(trainer: L.Trainer) -> int:
    total = trainer.estimated_stepping_batches
    if total in (-1, float("inf")):
        raise ValueError(
            "HorizonLR needs to know how long the run is: give trainer.max_steps or trainer.max_epochs, or its "
            "own total_steps"
        )
    return int(total)
