"""A suite's runs by cell and schedule, and the file that has a row for each."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.suites.runs import CHANCE, LOSS, Cell, Run, SuiteRun
from metalr.compare.record import Record

CAP = 10.0
"""A validation loss that is not a number, or above ten times the run's initial one, counts as ten times that."""


@dataclass(frozen=True)
class Result:
    """Holds what a run gave.

    Attributes:
        curve: validation loss before the first step and at evenly spaced ones, the last at the end.
        metric: at the end, in [0, 1].
        seconds: of one core.
        chance: metric of the best answer that is the same for all held-out rows.
        fingerprint: of the run, as `SuiteRun.fingerprint`; "" where it does not matter.
        peak_rate: largest rate, first group, of those that were noted at the evaluations.
    """

    curve: tuple[float, ...]
    metric: float
    seconds: float
    chance: float = math.nan
    fingerprint: str = ""
    peak_rate: float = math.nan

    @property
    def final(self) -> float:
        """Final validation loss."""
        return self.curve[-1]

    @classmethod
    def of(cls, record: Record, metric: str) -> Result:
        """Reads a run's record, of whose final figures `metric` is one."""
        curve = tuple(record.curves[LOSS][1])
        peak = max(record.curves["lr"][1])
        return cls(curve, record.final[metric], record.seconds, record.final[CHANCE], record.fingerprint, peak)


def results_of(runs: Iterable[SuiteRun], records: Mapping[str, Record]) -> dict[Run, Result]:
    """Collects the results of the finished runs, by their key."""
    return {run.key: Result.of(records[run.name], run.task.metric_name) for run in runs if run.name in records}


_NUMBERS = ("metric", "seconds", "chance", "peak_rate")


def write_rows(results: Mapping[Run, Result], path: Path) -> None:
    """Writes a row a run: its key, final validation loss, metric, and so on, its fingerprint, and the loss's curve."""
    points = max((len(result.curve) for result in results.values()), default=0)
    losses = [f"loss_{i}" for i in range(points)]
    columns = [*Run.__dataclass_fields__, "final", *_NUMBERS, "fingerprint", *losses]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for run, result in results.items():
            ends = {name: f"{getattr(result, name):.6g}" for name in ("final", *_NUMBERS)}
            curve = [f"{loss:.6g}" for loss in result.curve]
            mark = {"fingerprint": result.fingerprint}
            writer.writerow(asdict(run) | ends | mark | dict(zip(losses, curve, strict=True)))


def read_rows(path: Path) -> dict[Run, Result]:
    """Reads what `write_rows` wrote.

    Raises:
        ValueError: for a row that is no run, such as a mean over several.
    """
    with path.open(newline="") as file:
        return dict(_parse(row, f"{path}, line {number}") for number, row in enumerate(csv.DictReader(file), 2))


def _parse(row: Mapping[str, str], where: str) -> tuple[Run, Result]:
    try:
        key = {"steps": int(row["steps"]), "rate": float(row["rate"]), "seed": int(row["seed"])}
        names = {name: row[name] for name in ("task", "optimizer", "schedule", "policy")}
        curve = tuple(float(loss) for name, loss in row.items() if name.startswith("loss_"))
        numbers = {name: float(row[name]) for name in _NUMBERS}
        return Run(**names, **key), Result(curve, fingerprint=row["fingerprint"], **numbers)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{where}: not a run of a suite ({error}); give a file with a row a run") from error


def capped(curve: Sequence[float]) -> list[float]:
    """Limits a run's validation losses to `CAP` times the first."""
    limit = CAP * curve[0]
    return [min(loss, limit) if math.isfinite(loss) else limit for loss in curve]


@dataclass(frozen=True)
class Scores:
    """Holds a schedule in a cell.

    Attributes:
        curves: mean over seeds of the validation losses, one for each initial rate, in order of the rates.
        metrics: mean over seeds, one for each initial rate.
    """

    curves: list[list[float]]
    metrics: list[float]

    @classmethod
    def of(cls, runs: Mapping[Run, Result]) -> Scores:
        """Averages all runs of a schedule in a cell."""
        by_rate: dict[float, list[Result]] = {}
        for run, result in runs.items():
            by_rate.setdefault(run.rate, []).append(result)
        groups = [by_rate[rate] for rate in sorted(by_rate)]
        curves = [
            [fmean(at_point) for at_point in zip(*(capped(r.curve) for r in group), strict=True)] for group in groups
        ]
        return cls(curves, [fmean(r.metric for r in group) for group in groups])

    @property
    def finals(self) -> list[float]:
        """Final losses, by initial rate."""
        return [curve[-1] for curve in self.curves]


Table = dict[Cell, dict[str, Scores]]
"""Scores of each schedule in each cell."""


def complete(results: Mapping[Run, Result], planned: Iterable[Run]) -> dict[Run, Result]:
    """Leaves out each schedule in a cell that lacks one of its planned runs: its best or worst rate is not known."""
    each = list(planned)
    lacking = {(run.cell, run.schedule) for run in each if run not in results}
    return {run: results[run] for run in each if (run.cell, run.schedule) not in lacking}


def tabulate(results: Mapping[Run, Result]) -> Table:
    """Averages the runs of each schedule in each cell."""
    groups: dict[Cell, dict[str, dict[Run, Result]]] = {}
    for run, result in results.items():
        groups.setdefault(run.cell, {}).setdefault(run.schedule, {})[run] = result
    return {cell: {name: Scores.of(runs) for name, runs in row.items()} for cell, row in groups.items()}
