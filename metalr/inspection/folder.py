"""Where an inspection lies: `inspection` in the folder of a run's logs."""

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
    """What one optimizer's policy did."""

    policy: LRPolicy
    trace: Trace


def save_run(folder: Path, parts: Sequence[Inspected]) -> None:
    """Writes what each optimizer's policy did to `<folder>/inspection`."""
    for index, part in enumerate(parts):
        own = folder / FOLDER / f"optimizer-{index}"
        part.trace.save(own / _TRACE)
        part.policy.save(own / _POLICY)


def load_run(folder: Path) -> list[Inspected]:
    """Reads `save_run`; none where there is nothing."""
    found = sorted((folder / FOLDER).glob(f"optimizer-*/{_TRACE}"))
    return [Inspected(LRPolicy.load(path.with_name(_POLICY)), Trace.load(path)) for path in found]


def save_history(folder: Path, history: MetaHistory) -> None:
    """Writes what a meta-training's inspector kept to `<folder>/inspection`."""
    history.save(folder / FOLDER / _HISTORY)


def load_history(folder: Path) -> MetaHistory | None:
    """Reads `save_history`; None where there is nothing."""
    path = folder / FOLDER / _HISTORY
    return MetaHistory.load(path) if path.is_file() else None
