"""What an experiment hangs on a Trainer, each usable by class_path from YAML."""

from callbacks.compile import Compile
from callbacks.freeze import Freeze
from metalr import MetaLRCallback

__all__ = ["Compile", "Freeze", "MetaLRCallback"]
