"""The command line of `train.py`: `fit` and the like from LightningCLI, and `compare`, `inspect` and `submit`.

What these three do is in `metalr.compare`, `metalr.inspection` and `metalr.cluster`.
It may import every other folder of metalr, and none imports it; it needs lightning and jsonargparse.
"""

from metalr.cli.lightning_cli import MetaLRCLI

__all__ = ["MetaLRCLI"]
