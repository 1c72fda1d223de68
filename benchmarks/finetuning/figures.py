"""The suite's figures as numbers.

Of a schedule in a cell, each initial rate gives one number, its mean over seeds; "median" and "worst" are taken over
the initial rates. The best-tuned run of a cell is the baseline and the rate with the lowest final validation loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean, median

from benchmarks.finetuning.runs import BASELINES, LEARNED, ORDER, OWN
from benchmarks.suites.runs import Cell, Run
from benchmarks.suites.table import Result, Scores, Table, tabulate

MARGIN = 0.02
"""A run whose accuracy is at most so far above that of the best answer that is always the same is at chance."""


@dataclass(frozen=True)
class Standing:
    """Compares the learned schedule with the best-tuned run of a cell.

    Attributes:
        baseline, rate, loss, metric: of the best-tuned run.
        median, worst: final validation loss of the learned schedule over `loss`, from its median and worst rate.
        learned_metric: of the learned schedule, the median over its rates.
    """

    baseline: str
    rate: float
    loss: float
    metric: float
    median: float
    worst: float
    learned_metric: float


@dataclass(frozen=True)
class Findings:
    """Holds all that the page says, as numbers.

    Attributes:
        command: that the suite was run by.
        table: scores of each schedule in each cell.
        rates: initial rates of each cell, ascending.
        standings: of the cells in which the learned schedule and all baselines are complete.
        at_chance: number of runs at chance and of all runs, by schedule.
        done, planned: numbers of runs.
        seeds: runs from each rate.
        core_minutes: of one core, all runs together.
    """

    command: str
    table: Table
    rates: dict[Cell, list[float]]
    standings: dict[Cell, Standing]
    at_chance: dict[str, tuple[int, int]]
    done: int
    planned: int
    seeds: int
    core_minutes: float

    @classmethod
    def of(cls, results: Mapping[Run, Result], planned: Sequence[Run], command: str) -> Findings:
        """Works out all figures of the runs that are there."""
        table = tabulate(results, planned)
        rates = {cell: sorted({run.rate for run in planned if run.cell == cell}) for cell in table}
        found = {cell: standing(row, rates[cell]) for cell, row in table.items()}
        done = {run: results[run] for run in planned if run in results}
        return cls(
            command=command,
            table=table,
            rates=rates,
            standings={cell: each for cell, each in found.items() if each},
            at_chance=at_chance(done),
            done=len(done),
            planned=len(planned),
            seeds=len({run.seed for run in planned}),
            core_minutes=sum(result.seconds for result in done.values()) / 60,
        )

    def figures(self) -> dict[str, float]:
        """Gives the figures over all cells, by name; none where no cell is complete."""
        each = list(self.standings.values())
        if not each:
            return {}
        gaps = [100.0 * (one.learned_metric - one.metric) for one in each]
        return {
            "median_over_best_tuned": geometric_mean(one.median for one in each),
            "median_over_best_tuned_worst_cell": max(one.median for one in each),
            "worst_over_best_tuned": geometric_mean(one.worst for one in each),
            "worst_over_best_tuned_worst_cell": max(one.worst for one in each),
            "metric_gap_points_mean": fmean(gaps),
            "metric_gap_points_worst": min(gaps),
        }


def standing(row: Mapping[str, Scores], rates: Sequence[float]) -> Standing | None:
    """Compares the schedules of a cell; None where one of them is not complete."""
    if not row.keys() >= {LEARNED, *BASELINES}:
        return None
    best = min(
        (loss, name, rate, metric)
        for name in BASELINES
        for loss, rate, metric in zip(row[name].finals, rates, row[name].metrics, strict=True)
    )
    loss, name, rate, metric = best
    own = row[LEARNED]
    return Standing(name, rate, loss, metric, median(own.finals) / loss, max(own.finals) / loss, median(own.metrics))


def at_chance(results: Mapping[Run, Result]) -> dict[str, tuple[int, int]]:
    """Counts, for each schedule, the runs at chance and all of its runs."""
    found: dict[str, tuple[int, int]] = {}
    for name in ORDER:
        each = [result for run, result in results.items() if run.schedule == name]
        if each:
            found[name] = sum(is_at_chance(result) for result in each), len(each)
    return found


def is_at_chance(result: Result) -> bool:
    """Tells whether a run ends no better than an answer that is always the same, or not at a number."""
    return not math.isfinite(result.curve[-1]) or result.metric <= result.chance + MARGIN


def rivals_of(row: Mapping[str, Scores]) -> Iterable[tuple[str, Scores]]:
    """Lists the optimizers with a rate of their own that a cell has."""
    return ((name, row[name]) for name in OWN if name in row)
