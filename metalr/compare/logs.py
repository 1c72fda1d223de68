"""Reads the record of a cell off the logs of an ordinary TensorBoardLogger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean

from metalr.compare.callback import PROGRESS
from metalr.compare.grid import Cell
from metalr.compare.record import Curve, Record, averaged, decimate, fingerprint


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
    curves |= {workload.train_loss: averaged(training)} | {name: decimate(scalars[tag]) for name, tag in own.items()}
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
    """Reads all scalars below a logger's folder, by tag; the parts of a resumed run are joined.

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


def _ends(scalars: Mapping[str, Curve]) -> dict[str, float]:
    return {name: values[-1] for name, (_, values) in scalars.items() if name not in ("epoch", "hp_metric")}


def _split(name: str) -> str:
    """Gives "val" of val/loss, val_loss and val_mismatched/accuracy."""
    return re.split("[/_]", name)[0]
