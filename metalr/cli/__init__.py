"""The command line of `train.py`: `fit` and its kin by LightningCLI, and the subcommands of the other folders.

It may import every other folder of metalr; none imports it.
"""

from metalr.cli.lightning_cli import MetaLRCLI

__all__ = ["MetaLRCLI"]
