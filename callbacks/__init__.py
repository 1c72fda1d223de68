"""Callbacks of the experiments, each usable by `class_path` from YAML: `class_path: callbacks.Inspector`.

`Compile` and `Freeze` are defined here; the others are re-exported from `metalr`. They may import `metalr`, and are not
in the wheel.
"""

from callbacks.compile import Compile
from callbacks.freeze import Freeze
from metalr import MetaLRCallback
from metalr.inspection import ConvergenceSpeed, Inspector, MetaInspector, RunTable

__all__ = ["Compile", "ConvergenceSpeed", "Freeze", "Inspector", "MetaInspector", "MetaLRCallback", "RunTable"]
