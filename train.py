"""Runs an experiment: `python train.py fit --config configs/digits.yaml --config configs/schedule/metalr.yaml`."""

import callbacks  # noqa: F401 - so that YAML finds the three collections
import datamodules  # noqa: F401
import models  # noqa: F401
from metalr.cli import MetaLRCLI

if __name__ == "__main__":
    MetaLRCLI()
