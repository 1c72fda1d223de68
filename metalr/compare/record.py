"""The record of a finished cell, kept as one JSON file, and the fingerprint of its inputs."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalr.compare.files import write_text
from metalr.compare.grid import Cell
from metalr.core.policy import LRPolicy, shipped_policies

RECORD = "record.json"
"""In a cell's folder; it is written last, so where it is, the cell is finished."""

POINTS = 300
"""Points of a stored training curve at most; those of the validation are all kept."""

Curve = tuple[list[int], list[float]]
"""Optimizer steps done, and values."""


@dataclass(frozen=True)
class Record:
    """Holds the outcome of one cell.

    Attributes:
        fingerprint: of everything that decides the run, so that a folder of another grid is recognised.
        workload, schedule, rate, seed: the cell.
        steps: optimizer steps done.
        epoch_steps: optimizer steps of one epoch, where that is known.
        seconds: from the first step to the end of training, validation included.
        first_loss: the loss before anything was learned: the first training loss that was logged.
        final: validation metrics at the last validation, and the training loss, mean of the last tenth logged.
        test: metrics of the test split at the end of training.
        curves: the validation metric and loss, training loss, rate ("lr") and time ("seconds"), by name.
        made_with: versions and device.
    """

    fingerprint: str
    workload: str
    schedule: str
    rate: float
    seed: int
    steps: int
    epoch_steps: int | None
    seconds: float
    first_loss: float
    final: dict[str, float]
    test: dict[str, float]
    curves: dict[str, Curve]
    made_with: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes the record, which marks the cell as finished."""
        write_text(folder / RECORD, json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Record | None:
        """Reads the record of a cell; None where it is not finished.

        Raises:
            ValueError: where the file is damaged.
        """
        path = folder / RECORD
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text())
            stored["curves"] = {name: tuple(curve) for name, curve in stored["curves"].items()}
            return cls(**stored)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it, and the cell runs again") from error


def fingerprint(cell: Cell) -> str:
    """Digests the command of a cell, wherever its folder lies, and the contents of its configs and policies."""
    digest = hashlib.sha256()
    command = [*cell.fit(Path()), str(cell.workload.test)]
    config = cell.schedule.config
    texts = [Path(path).read_text() for path in cell.workload.configs]
    texts.append(Path(config).read_text() if isinstance(config, str) else json.dumps(config, sort_keys=True))
    for text in (*command, *texts):
        digest.update(text.encode() + b"\0")
    for policy in _policies("\n".join([*command, *texts])):
        digest.update(policy + b"\0")
    return digest.hexdigest()


def _policies(text: str) -> list[bytes]:
    """Identifies the policies that a cell's rates come from: the shipped ones, and the files that it names."""
    if "MetaLRCallback" not in text:
        return []
    named = re.findall(r"[^\s\"'=,:\[\]{}]+\.safetensors", text)
    shipped = [LRPolicy.load(path).fingerprint().encode() for path in shipped_policies().values()]  # whatever the card
    return [*shipped, *(Path(name).read_bytes() for name in named if Path(name).is_file())]


def decimate(curve: Curve, points: int = POINTS) -> Curve:
    """Decimates a curve to at most so many points, the first and the last among them."""
    steps, values = curve
    if len(steps) <= points:
        return curve
    chosen: NDArray[Any] = np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))
    return [steps[i] for i in chosen], [values[i] for i in chosen]


def averaged(curve: Curve, points: int = POINTS) -> Curve:
    """Reduces a noisy curve to at most so many means of neighbours, each at its last step."""
    steps, values = curve
    if len(steps) <= points:
        return curve
    parts = np.array_split(np.arange(len(steps)), points)
    return [steps[part[-1]] for part in parts], [fmean(values[i] for i in part) for part in parts]
