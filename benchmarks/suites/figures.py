"""A suite's figures as numbers.

Of a schedule in a cell, each initial rate gives one number, its mean over seeds; "best", "median" and "worst" are
taken over the initial rates. Losses are compared cell by cell, as ratios, of which `estimates` takes the mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, geometric_mean, median

from benchmarks.suites import estimates
from benchmarks.suites.estimates import Estimate
from benchmarks.suites.runs import Cell, Run
from benchmarks.suites.schedules import FOUND, LEARNED, RIVALS, TITLES, TUNED, YARDSTICK
from benchmarks.suites.suite import Suite
from benchmarks.suites.table import Result, Scores, Table, tabulate
from metalr.compare.files import write_text

BASELINES = {"default": (YARDSTICK, "cosine"), "anytime": (YARDSTICK, "constant")}
"""What each learned schedule is held against: the yardstick, and a schedule that knows as much of the horizon."""

UNTUNED = (*FOUND, *RIVALS)
"""Schedules that are given no initial rate, or one of three."""

MARGIN = 0.02
"""A run whose metric is at most so far above that of the best answer that is always the same is at chance."""

PICKS: dict[str, Callable[[Sequence[float]], float]] = {"best": min, "median": median, "worst": max}
"""What is taken over the initial rates."""

METRICS = {"default": "metric learned", "anytime": "metric anytime"}
"""Columns of the learned schedules' metrics at their median rate."""

BEST_METRIC = "metric best tuned"
"""Column of the best metric of all tuned schedules at all rates."""

Row = dict[str, float | int | str | None]
"""One cell: `task`, `optimizer`, `steps`, and its losses and metrics by name; None where they are not complete."""

Estimates = dict[str, Estimate]
"""By name of the figure."""


@dataclass(frozen=True)
class Findings:
    """Holds all that the page says, as numbers.

    Attributes:
        summary: final loss over the yardstick's at its best rate from the best, the median and the worst rate, by
            schedule; over the networks' cells.
        by_rate: the same from each initial rate, ascending: the means alone.
        splits: the learned schedules' figures over the cells of each part, by the part's name.
        figures: steps, metrics and wins of the learned schedules; over the networks' cells.
        cells: rows of the table of cells.
        above_initial: the learned runs that end above their initial validation loss, or not at a number.
        at_chance: numbers of runs at chance and of all runs, by schedule.
        found_rates: smallest and largest rate that the rate finder chose, and the share of its runs where it is below a
            hundredth of the optimizer's usual one; None where it was not run.
        rates, seeds: numbers of initial rates, and of runs from each.
        runs: number of runs.
        core_minutes: of one core, all runs together.
    """

    summary: dict[str, Estimates]
    by_rate: dict[str, list[float]]
    splits: dict[str, Estimates]
    figures: Estimates
    cells: list[Row]
    above_initial: list[Run]
    at_chance: dict[str, tuple[int, int]]
    found_rates: tuple[float, float, float] | None
    rates: int
    seeds: int
    runs: int
    core_minutes: float

    @classmethod
    def of(cls, results: Mapping[Run, Result], suite: Suite) -> Findings:
        """Works out all figures of some runs."""
        table = tabulate(results)
        parts = {name: {cell: table[cell] for cell in cells} for name, cells in parts_of(table, suite).items()}
        kind = NETWORKS if NETWORKS in parts else TREES  # a suite is about networks, or has none
        networks = parts.get(kind, table)
        rows = cell_rows(networks)
        ranged = {*LEARNED, *TUNED}
        figures: dict[str, Estimate | None] = {}
        for learned in suite.learned:
            figures |= step_figures(networks, learned, BASELINES[learned][0 if learned == "default" else 1])
            figures |= metric_figures(rows, learned) | win_figures(networks, learned)
        return cls(
            summary={name: each for name in (*suite.learned, *TUNED, *UNTUNED) if (each := over(networks, name))},
            by_rate={name: each for name in (*suite.learned, *TUNED) if (each := ratios_by_rate(networks, name))},
            splits={
                f"{kind}, {BY_TASK}": headlines(networks, suite.learned, by_task=True),
                **{name: headlines(part, suite.learned) for name, part in parts.items()},
            },
            figures=_known(figures),
            cells=cell_rows(table),
            above_initial=above_initial(results),
            at_chance=at_chance(results),
            found_rates=found_rates(results),
            rates=max((len(row[name].finals) for row in table.values() for name in row.keys() & ranged), default=1),
            seeds=len({run.seed for run in results}),
            runs=len(results),
            core_minutes=sum(result.seconds for result in results.values()) / 60,
        )

    def save(self, path: Path) -> None:
        """Writes the figures as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")


def _known(figures: Mapping[str, Estimate | None]) -> Estimates:
    return {name: each for name, each in figures.items() if each is not None}


NETWORKS, TREES = "networks", "boosted trees"
"""Parts of the cells."""

BY_TASK = "a mean a task"
"""The cells with those of one task as one, since they share their data."""


def parts_of(cells: Iterable[Cell], suite: Suite) -> dict[str, list[Cell]]:
    """Splits the cells: boosted trees apart; networks by horizon, by optimizer, and by what meta-training has had.

    Returns:
        The cells of each part that has one, by its name.
    """
    each = list(cells)
    tasks = suite.tasks
    shortest = {name: min((c.steps for c in each if c.task == name), default=0) for name in tasks}
    longest = {name: max((c.steps for c in each if c.task == name), default=0) for name in tasks}
    networks = [cell for cell in each if not tasks[cell.task].is_boosted]
    both = [cell for cell in networks if shortest[cell.task] < longest[cell.task]]
    drawn = [name for name, task in tasks.items() if task.drawn]
    found = {
        NETWORKS: networks,
        "networks, short": [cell for cell in both if cell.steps == shortest[cell.task]],
        "networks, long": [cell for cell in both if cell.steps == longest[cell.task]],
        "networks, SGD": [cell for cell in networks if cell.optimizer == "sgd"],
        "networks, AdamW": [cell for cell in networks if cell.optimizer == "adamw"],
        f"networks without {', '.join(drawn)}": [cell for cell in networks if drawn and cell.task not in drawn],
        f"{', '.join(drawn)} alone": [cell for cell in networks if cell.task in drawn],
        "networks, all new": [cell for cell in networks if tasks[cell.task].new.is_whole],
        TREES: [cell for cell in each if tasks[cell.task].is_boosted],
        "all": each,
    }
    return {name: part for name, part in found.items() if part}


def headlines(table: Table, learned: Iterable[str], by_task: bool = False) -> Estimates:
    """Divides each learned schedule's final loss, from its median and worst rate, by its baselines' at their best.

    Args:
        table: losses of the cells.
        learned: names of the schedules.
        by_task: take the geometric mean of a task's cells as one observation.
    """
    paired = _task_means if by_task else _pairs
    return _known(
        {
            f"{name}_{which}_over_best_{baseline}": estimates.ratio(paired(table, name, PICKS[which], baseline))
            for name in learned
            for which in ("median", "worst")
            for baseline in BASELINES[name]
        }
    )


def over(table: Table, name: str) -> Estimates:
    """Divides a schedule's final loss from its best, median and worst rate by the yardstick's at its best."""
    return _known({which: estimates.ratio(_pairs(table, name, pick, YARDSTICK)) for which, pick in PICKS.items()})


def _pairs(table: Table, name: str, pick: Callable[[Sequence[float]], float], other: str) -> list[tuple[float, float]]:
    """Pairs final losses of a schedule, and of another at its best rate, wherever both are there."""
    rows = [row for row in table.values() if {name, other} <= row.keys()]
    return [(pick(row[name].finals), min(row[other].finals)) for row in rows]


def _task_means(
    table: Table, name: str, pick: Callable[[Sequence[float]], float], other: str
) -> list[tuple[float, float]]:
    """Does the same with one pair a task: the geometric means of its cells."""
    pairs = []
    for task in dict.fromkeys(cell.task for cell in table):
        own = _pairs({cell: row for cell, row in table.items() if cell.task == task}, name, pick, other)
        if own:
            first, second = (geometric_mean(side) for side in zip(*own, strict=True))
            pairs.append((first, second))
    return pairs


def cell_rows(table: Table) -> list[Row]:
    """Lists the cells with their losses and metrics."""
    tuned = {name for row in table.values() for name in row} & TUNED.keys()
    return [dict(cell._asdict()) | _cell(row, tuned) for cell, row in table.items()]


def _cell(row: Mapping[str, Scores], tuned: Set[str]) -> Row:
    found: Row = {f"{name} best": _at(row, name, min) for name in (YARDSTICK, "cosine", "constant")}
    for name in LEARNED:
        found |= {f"{name} median": _at(row, name, median), f"{name} worst": _at(row, name, max)}
    found |= {name: _at(row, name, min) for name in UNTUNED}
    for name in LEARNED:
        found[METRICS[name]] = median(row[name].metrics) if name in row else None
    complete = tuned and row.keys() >= tuned
    return found | {BEST_METRIC: max(max(row[name].metrics) for name in tuned) if complete else None}


def _at(row: Mapping[str, Scores], name: str, pick: Callable[[Sequence[float]], float]) -> float | None:
    return pick(row[name].finals) if name in row else None


def ratios_by_rate(table: Table, name: str) -> list[float]:
    """Compares a schedule with the yardstick at its best rate, from each of its initial rates; empty without a cell."""
    rows = [row for row in table.values() if {name, YARDSTICK} <= row.keys()]
    ratios = [[(final, min(row[YARDSTICK].finals)) for final in row[name].finals] for row in rows]
    return [each.value for pairs in zip(*ratios, strict=True) if (each := estimates.ratio(pairs))]


def share_to_reach(curve: Sequence[float], target: float) -> float:
    """Finds the share of the run at which its validation loss first is at most `target`; infinite where it never is.

    Between two evaluations the loss is taken as linear.
    """
    last = len(curve) - 1
    for index, loss in enumerate(curve):
        if loss <= target:
            if index == 0:
                return 0.0
            before = curve[index - 1]
            return (index - 1 + (before - target) / (before - loss)) / last
    return math.inf


def step_figures(table: Table, learned: str, baseline: str) -> dict[str, Estimate | None]:
    """Measures the share of the run that `learned` takes to the final loss of `baseline` at its best.

    It is 1 where it never gets there. A share that is reached counts as at least one interval of evaluations, as no
    share can be told from less.
    """
    shares, least = [], []
    for row in table.values():
        if {learned, baseline} <= row.keys():
            target = min(row[baseline].finals)
            shares.append(median(share_to_reach(curve, target) for curve in row[learned].curves))
            least.append(1.0 / (len(row[learned].curves[0]) - 1))
    taken = [(max(first, min(each, 1.0)), 1.0) for each, first in zip(shares, least, strict=True)]
    return {
        f"{learned}_steps_to_best_{baseline}": estimates.ratio(taken),
        f"{learned}_never_at_best_{baseline}": estimates.share(math.isinf(each) for each in shares),
    }


def metric_figures(cells: Iterable[Row], learned: str) -> dict[str, Estimate | None]:
    """Compares the metric of `learned` at its median rate with the best of all tuned schedules, in points."""
    pairs = [
        (100.0 * float(own), 100.0 * float(best))
        for row in cells
        if (own := row[METRICS[learned]]) is not None and (best := row[BEST_METRIC]) is not None
    ]
    found: dict[str, Estimate | None] = {f"{learned}_metric_gap_points": estimates.difference(pairs)}
    if pairs:
        worst = min(own - best for own, best in pairs)
        found[f"{learned}_metric_gap_points_worst"] = Estimate(worst, None, None, len(pairs))
    return found


def win_figures(table: Table, learned: str) -> dict[str, Estimate | None]:
    """Counts the share of cells in which `learned` at its median rate ends below another schedule at its best."""
    others = (YARDSTICK, "cosine", *UNTUNED)
    return {
        f"{learned}_wins_over_{other}": estimates.share(
            own < best for own, best in _pairs(table, learned, median, other)
        )
        for other in others
    }


def above_initial(results: Mapping[Run, Result]) -> list[Run]:
    """Lists the learned runs that end above their initial validation loss, or not at a number."""
    return [run for run, result in results.items() if run.policy and not result.final <= result.curve[0]]


def at_chance(results: Mapping[Run, Result]) -> dict[str, tuple[int, int]]:
    """Counts, for each schedule, the runs at chance and all of its runs."""
    found: dict[str, tuple[int, int]] = {}
    for name in TITLES:
        each = [result for run, result in results.items() if run.schedule == name]
        if each:
            found[name] = sum(map(is_at_chance, each)), len(each)
    return found


def is_at_chance(result: Result) -> bool:
    """Tells whether a run ends no better than an answer that is always the same, or not at a number."""
    return not math.isfinite(result.final) or result.metric <= result.chance + MARGIN


def found_rates(results: Mapping[Run, Result]) -> tuple[float, float, float] | None:
    """Collects `Findings.found_rates`; a run of the finder stands at the usual rate, whatever it found."""
    found = [(result.peak_rate, run.rate) for run, result in results.items() if run.schedule in FOUND]
    if not found:
        return None
    rates = [rate for rate, _ in found]
    return min(rates), max(rates), fmean(rate < 0.01 * usual for rate, usual in found)
