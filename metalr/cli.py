"""MetaLRCLI: the LightningCLI of `train.py`; anyone's own train script can use it with their models and data."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI


class MetaLRCLI(LightningCLI):
    """LightningCLI in which models and data are chosen by `class_path`, and several `--config` files merge.

    The run's full configuration is stored beside its logs, also where that folder exists already (a resumed run).
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
        """Progress and logs as an experiment wants them; any of it can be set in YAML or on the command line."""
        parser.set_defaults({"trainer.log_every_n_steps": 10})
