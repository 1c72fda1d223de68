"""Callbacks of an experiment, each usable by class_path from YAML; those of `metalr.inspection` by a shorter name."""

from callbacks.compile import Compile
from callbacks.freeze import Freeze
from metalr import MetaLRCallback
from metalr.inspection import ConvergenceSpeed, Inspector, MetaInspector, RunTable

__all__ = ["Compile", "ConvergenceSpeed", "Freeze", "Inspector", "MetaInspector", "MetaLRCallback", "RunTable"]
