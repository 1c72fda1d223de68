"""What an experiment hangs on a Trainer, each usable by class_path from YAML."""

from metalr import MetaLRCallback

__all__ = ["MetaLRCallback"]
