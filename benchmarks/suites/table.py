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
        chance: metric of the best answer that is the same for all held-out rows; not a number where it was not noted.
    """

    curve: tuple[float, ...]
    metric: float
    seconds: float
    chance: float = math.nan

    @classmethod
    def of(cls, record: Record, metric: str) -> Result:
        """Reads a run's record, of whose final figures `metric` is one."""
        return cls(
            tuple(record.curves[LOSS][1]), record.final[metric], record.seconds, record.final.get(CHANCE, math.nan)
        )


def results_of(runs: Iterable[SuiteRun], records: Mapping[str, Record]) -> dict[Run, Result]:
    """Collects the results of the finished runs, by their key."""
    return {run.key: Result.of(records[run.name], run.task.metric_name) for run in runs if run.name in records}


def write_rows(results: Mapping[Run, Result], path: Path) -> None:
    """Writes a row a run: its key, metric, seconds, and losses."""
    losses = [f"loss_{i}" for i in range(max((len(result.curve) for result in results.values()), default=0))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, [*Run.__dataclass_fields__, "metric", "chance", "seconds", *losses], lineterminator="\n"
        )
        writer.writeheader()
        for run, result in results.items():
            ends = {name: f"{getattr(result, name):.6g}" for name in ("metric", "chance", "seconds")}
            curve = [f"{loss:.6g}" for loss in result.curve]
            writer.writerow(asdict(run) | ends | dict(zip(losses, curve, strict=True)))


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
        return Run(**names, **key), Result(curve, *(float(row[name]) for name in ("metric", "seconds", "chance")))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{where}: not a run of the suite ({error}). The figures of a suite whose runs were not kept are in "
            "its .json file: give that as --source"
        ) from error


def capped(curve: Sequence[float]) -> list[float]:
    """Limits a run's validation losses to `CAP` times the first."""
    limit = CAP * curve[0]
    return [min(loss, limit) if math.isfinite(loss) else limit for loss in curve]


@dataclass(frozen=True)
class Scores:
    """Holds a schedule in a cell.

    Attributes:
        curves: mean over seeds of the validation losses, one for each initial rate, in order of the rates; a single
            one for a rival.
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
"""Scores of each schedule in each cell; a cell has the rivals of its task and horizon."""


def tabulate(results: Mapping[Run, Result], planned: Iterable[Run]) -> Table:
    """Averages wherever all planned runs of a schedule in a cell are there."""
    groups: dict[tuple[Cell, str], list[Run]] = {}
    for run in planned:
        groups.setdefault((run.cell, run.schedule), []).append(run)
    done = {
        key: Scores.of({run: results[run] for run in runs})
        for key, runs in groups.items()
        if all(run in results for run in runs)
    }
    table: Table = {cell: {} for cell, _ in groups if cell.optimizer != "own"}
    for (cell, schedule), scores in done.items():
        for other, row in table.items():
            if other == cell or (cell.optimizer == "own" and (cell.task, cell.steps) == (other.task, other.steps)):
                row[schedule] = scores
    return table
