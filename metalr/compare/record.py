"""What a finished cell leaves: read off the logs of an ordinary TensorBoardLogger, kept as one JSON file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalr.compare.callback import PROGRESS
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
    """The outcome of one cell.

    Attributes:
        fingerprint: of everything that decides the run, so that a folder of another grid is told.
        workload, schedule, rate, seed: the cell.
        steps: optimizer steps done.
        epoch_steps: optimizer steps of one epoch, where that is known.
        seconds: from the first step to the end of training, validation included.
        first_loss: the first training loss that was logged.
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
        """Writes the record; that ends the cell."""
        write_text(folder / RECORD, json.dumps(asdict(self)))

    @classmethod
    def load(cls, folder: Path) -> Record | None:
        """The record of a cell, or None where it is not finished.

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
    """Of the command of a cell, wherever its folder lies, and of the contents of its configs and policies."""
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
    """What tells the policies apart that a cell's rates come from: the shipped ones, and the files that it names."""
    if "MetaLRCallback" not in text:
        return []
    named = re.findall(r"[^\s\"'=,:\[\]{}]+\.safetensors", text)
    shipped = [LRPolicy.load(path).fingerprint().encode() for path in shipped_policies().values()]  # whatever the card
    return [*shipped, *(Path(name).read_bytes() for name in named if Path(name).is_file())]


def read_record(cell: Cell, folder: Path, made_with: dict[str, str]) -> Record:
    """Reads the logs of a cell whose commands have ended.

    Raises:
        ValueError: where a metric of the workload is not in the logs.
    """
    scalars = read_scalars(folder / "fit")
    workload = cell.workload
    wanted = {workload.metric, workload.loss, workload.train_loss, "compare/lr", "compare/seconds"}
    if missing := sorted(wanted - set(scalars)):
        raise ValueError(f"{', '.join(missing)}: not in the logs of {folder}; logged: {', '.join(sorted(scalars))}")
    note = json.loads((folder / PROGRESS).read_text())
    own = {"lr": "compare/lr", "seconds": "compare/seconds"}
    training = scalars[workload.train_loss]
    curves = {name: scalars[name] for name in (workload.metric, workload.loss)}
    curves |= {workload.train_loss: averaged(training)} | {name: thin(scalars[tag]) for name, tag in own.items()}
    ends = {name: values[-1] for name, (_, values) in scalars.items() if _split(name) == _split(workload.metric)}
    ends[workload.train_loss] = fmean(training[1][-max(1, len(training[1]) // 10) :])
    return Record(
        fingerprint=fingerprint(cell),
        workload=workload.name,
        schedule=cell.schedule.name,
        rate=cell.rate,
        seed=cell.seed,
        steps=int(note["step"]),
        epoch_steps=note["epoch"],
        seconds=float(note["seconds"]),
        first_loss=training[1][0],
        final=ends,
        test=_ends(read_scalars(folder / "test")),
        curves=curves,
        made_with=made_with,
    )


def read_scalars(folder: Path) -> dict[str, Curve]:
    """All scalars below a logger's folder, by tag; of a resumed run, its parts joined.

    Each part has a `version_N`. A later one begins where it took up the checkpoint: what an earlier one logged from
    there on is left out.
    """
    merged: dict[str, dict[int, float]] = {}
    for part in _versions(folder):
        start = min(step for points in part.values() for step in points)
        for tag in merged:
            merged[tag] = {step: value for step, value in merged[tag].items() if step < start}
        for tag, points in part.items():
            merged.setdefault(tag, {}).update(points)
    ordered = {tag: sorted(points.items()) for tag, points in merged.items() if points}
    return {tag: ([s for s, _ in points], [v for _, v in points]) for tag, points in ordered.items()}


def _versions(folder: Path) -> Iterator[Mapping[str, Mapping[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    for version in sorted(folder.glob("version_*"), key=lambda path: int(path.name.partition("_")[2])):
        events = EventAccumulator(str(version), size_guidance={SCALARS: 0})
        events.Reload()
        if tags := events.Tags()[SCALARS]:  # a run that was taken up at its end logs nothing
            # Lightning counts the step that a value belongs to from 0: one more are done by then.
            yield {tag: {e.step + 1: float(e.value) for e in events.Scalars(tag)} for tag in tags}


def thin(curve: Curve, points: int = POINTS) -> Curve:
    """A curve of at most so many points, the first and the last among them."""
    steps, values = curve
    if len(steps) <= points:
        return curve
    chosen: NDArray[Any] = np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))
    return [steps[i] for i in chosen], [values[i] for i in chosen]


def averaged(curve: Curve, points: int = POINTS) -> Curve:
    """A noisy curve as at most so many means of neighbours, each at its last step."""
    steps, values = curve
    if len(steps) <= points:
        return curve
    parts = np.array_split(np.arange(len(steps)), points)
    return [steps[part[-1]] for part in parts], [fmean(values[i] for i in part) for part in parts]


def _ends(scalars: Mapping[str, Curve]) -> dict[str, float]:
    return {name: values[-1] for name, (_, values) in scalars.items() if name not in ("epoch", "hp_metric")}


def _split(name: str) -> str:
    """Gives "val" of val/loss, val_loss and val_mismatched/accuracy."""
    return re.split("[/_]", name)[0]
