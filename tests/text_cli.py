"""`python train.py` on a text workload, in this process."""

import callbacks  # noqa: F401 - the three collections, as train.py has them
import datamodules  # noqa: F401
import models  # noqa: F401
from metalr.cli import MetaLRCLI


def run(subcommand, folder, config, *more, schedule=None):
    """Runs a subcommand with a config, and a schedule merged onto it; writes below the folder alone."""
    configs = [f"configs/{config}.yaml", *([f"configs/schedule/{schedule}.yaml"] if schedule else [])]
    chosen = [part for path in configs for part in ("--config", path)]
    trainer = {"accelerator": "cpu", "enable_progress_bar": "false", "logger.save_dir": str(folder)}
    trainer |= {"default_root_dir": str(folder), "enable_model_summary": "false"}
    options = [part for key, value in trainer.items() for part in (f"--trainer.{key}", value)]
    return MetaLRCLI(args=[subcommand, *chosen, *options, *more])
