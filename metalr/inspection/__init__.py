"""Inspection: what a policy decided in a run, what each feature contributed, and how the policy responds to it.

`Inspector` records a run, `MetaInspector` a meta-training, `ConvergenceSpeed` and `RunTable` what a run reached, and
`Recorder` a training loop without a Trainer; `python train.py inspect` shows them. Figures of a comparison are in
`metalr.compare`. It may import `metalr.core`, `metalr.lightning`, `metalr.meta` and `metalr.plotting`; its four
callbacks need lightning.
"""

from typing import TYPE_CHECKING, Any

from metalr.inspection.history import MetaHistory, TaskRuns
from metalr.inspection.recorder import Recorder
from metalr.inspection.response import Responses, responses
from metalr.inspection.trace import Mark, Trace

if TYPE_CHECKING:
    from metalr.inspection.convergence_speed import ConvergenceSpeed
    from metalr.inspection.inspector import Inspector
    from metalr.inspection.meta_inspector import MetaInspector
    from metalr.inspection.run_table import RunTable

__all__ = [
    "ConvergenceSpeed",
    "Inspector",
    "Mark",
    "MetaHistory",
    "MetaInspector",
    "Recorder",
    "Responses",
    "RunTable",
    "TaskRuns",
    "Trace",
    "responses",
]

_CALLBACKS = {
    "ConvergenceSpeed": "convergence_speed",
    "Inspector": "inspector",
    "MetaInspector": "meta_inspector",
    "RunTable": "run_table",
}


def __getattr__(name: str) -> Any:
    if name in _CALLBACKS:
        from importlib import import_module

        return getattr(import_module(f"metalr.inspection.{_CALLBACKS[name]}"), name)
    raise AttributeError(f"module 'metalr.inspection' has no attribute {name!r}")
