"""The folder of an inspection: `inspection` in a run's log folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metalr.core.policy import LRPolicy
from metalr.inspection.history import MetaHistory
from metalr.inspection.trace import Trace

FOLDER = "inspection"
_TRACE, _POLICY, _HISTORY = "trace.safetensors", "policy.safetensors", "history.safetensors"


@dataclass(frozen=True)
class Inspected:
    """Holds a policy and the decisions that it took for one optimizer."""

    policy: LRPolicy
    trace: Trace


def save_run(folder: Path, parts: Sequence[Inspected]) -> None:
    """Writes the policy and the trace of each optimizer to `<folder>/inspection/optimizer-<index>`."""
    for index, part in enumerate(parts):
        own = folder / FOLDER / f"optimizer-{index}"
        part.trace.save(own / _TRACE)
        part.policy.save(own / _POLICY)


def load_run(folder: Path) -> list[Inspected]:
    """Reads what `save_run` wrote; an empty list where it wrote nothing."""
    found = sorted((folder / FOLDER).glob(f"optimizer-*/{_TRACE}"))
    return [Inspected(LRPolicy.load(path.with_name(_POLICY)), Trace.load(path)) for path in found]


def save_history(folder: Path, history: MetaHistory) -> None:
    """Writes the history of a meta-training to `<folder>/inspection`."""
    history.save(folder / FOLDER / _HISTORY)


def load_history(folder: Path) -> MetaHistory | None:
    """Reads what `save_history` wrote; None where it wrote nothing."""
    path = folder / FOLDER / _HISTORY
    return MetaHistory.load(path) if path.is_file() else None
