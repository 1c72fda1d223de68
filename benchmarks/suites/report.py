"""What a suite does with its runs: those that are missing are run, and compare's report is written of every cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from benchmarks.suites.runs import LOSS, Cell, Run, SuiteRun
from benchmarks.suites.table import Result, results_of
from metalr.compare.executor import Executor
from metalr.compare.files import locked
from metalr.compare.report import write_report
from metalr.compare.runner import Outcome, finished, run

Findings = TypeVar("Findings")


def check_settings(rates: int, seeds: int, jobs: int, scale: float) -> None:
    """Refuses numbers of which no suite can be made.

    Args:
        rates: initial rates of each optimizer.
        seeds: runs from each rate.
        jobs: worker processes.
        scale: of the horizons.

    Raises:
        ValueError: for fewer than two rates, no seed, no job, or a scale that is not positive and finite.
    """
    if rates < 2 or seeds < 1 or jobs < 1 or not 0.0 < scale < math.inf:
        raise ValueError(
            f"rates={rates}, seeds={seeds}, jobs={jobs}, scale={scale}: give two rates or more, one seed or more, one "
            "job or more and a scale above 0"
        )


@dataclass(frozen=True)
class Goal:
    """Says what counts as doing well in a cell, as `metalr.compare.design.Measured`."""

    name: str
    metric: str = LOSS
    mode: str = "min"
    loss: str = LOSS
    threshold: float | None = None


@dataclass(frozen=True)
class Suite:
    """Names the axes of the suite, as `metalr.compare.design.Design`."""

    name: str
    workloads: list[Goal]
    schedule_names: list[str]
    candidate: str

    @classmethod
    def of(cls, name: str, runs: Sequence[SuiteRun], candidate: str) -> Suite:
        """Reads the axes off the runs; the rivals stand in every cell of their task and horizon."""
        cells = dict.fromkeys(each.key.cell for each in runs if each.key.optimizer != "own")
        return cls(name, [Goal(c.name) for c in cells], list(dict.fromkeys(each.schedule for each in runs)), candidate)


def write_cells(suite: Suite, runs: Sequence[SuiteRun], outcome: Outcome, out: Path) -> Path:
    """Writes compare's report of every cell: claims with intervals, tables, curves.

    Returns:
        The page.
    """
    cells = dict.fromkeys(each.key.cell for each in runs if each.key.optimizer != "own")
    records = dict(outcome.records)
    for each in runs:
        if each.key.optimizer == "own" and (record := outcome.records.get(each.name)):
            for cell in _homes(each, cells):
                records[f"{each.name} in {cell.name}"] = replace(record, workload=cell.name)
    return write_report(suite, runs, Outcome(records, outcome.failed), out)


def _homes(each: SuiteRun, cells: Mapping[Cell, None]) -> list[Cell]:
    """The cells in which a rival's run is compared."""
    return [cell for cell in cells if (cell.task, cell.steps) == (each.key.task, each.key.steps)]


def checked(option: str, names: str | None, known: Sequence[str]) -> list[str]:
    """Reads the names of a comma-separated list, all of `known` where it is None.

    Raises:
        ValueError: for a name that is not known.
    """
    chosen = list(known) if names is None else names.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"{option}={names}: unknown {', '.join(unknown)}; choose of {', '.join(known)}")
    return chosen


def run_and_report(
    name: str,
    runs: Sequence[SuiteRun],
    executor: Executor,
    schedules: Sequence[str],
    write: Callable[[dict[Run, Result]], Findings],
    out: Path,
    report_only: bool = False,
) -> Findings:
    """Runs what is not finished, and writes both reports.

    Args:
        name: of the suite.
        runs: all of them.
        executor: where they run.
        schedules: whose runs are run.
        write: writes the suite's own page of what the finished runs gave.
        out: folder of the runs and of compare's report.
        report_only: whether to run nothing.

    Raises:
        SystemExit: with 130 after Ctrl-C, with 1 where a run failed, after the reports.
    """
    with locked(out):
        outcome = finished(runs)
        if not report_only:
            run(runs, outcome, executor, Console(), schedules)
        findings = write(results_of(runs, outcome.records))
        if outcome.records:
            print(f"cells: {write_cells(Suite.of(name, runs, 'default'), runs, outcome, out)}")
    if outcome.failed:
        first, log = next(iter(outcome.failed.items()))
        raise SystemExit(f"{len(outcome.failed)} runs failed, the first {first}:\n{log}")
    return findings
