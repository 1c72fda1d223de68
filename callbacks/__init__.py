"""What an experiment hangs on a Trainer, each usable by class_path from YAML."""

from callbacks.compile import Compile
from callbacks.convergence import ConvergenceSpeed
from callbacks.freeze import Freeze
from callbacks.inspector import Inspector
from callbacks.meta_inspector import MetaInspector
from callbacks.run_table import RunTable
from metalr import MetaLRCallback

__all__ = ["Compile", "ConvergenceSpeed", "Freeze", "Inspector", "MetaInspector", "MetaLRCallback", "RunTable"]
