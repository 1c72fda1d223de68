"""The arithmetic of the suite's figures.

Of a schedule in a cell, each initial rate gives one number, its mean over seeds; "best", "median" and "worst" are
taken over the initial rates. Losses are compared as ratios, of which the geometric mean over cells is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean, median

from benchmarks.heldout.runs import POINTS, Cell, Result, Run
from benchmarks.heldout.schedules import TUNED, UNTUNED

CAP = 10.0
"""A validation loss that is not a number, or above ten times the run's initial one, counts as ten times that."""


def capped(curve: Sequence[float]) -> list[float]:
    """A run's validation losses, each at most `CAP` times the first."""
    limit = CAP * curve[0]
    return [min(loss, limit) if math.isfinite(loss) else limit for loss in curve]


@dataclass(frozen=True)
class Scores:
    """A schedule in a cell.

    Attributes:
        curves: mean over seeds of the validation losses, one for each initial rate, in order of the rates; a single
            one for an untuned schedule.
        metrics: mean over seeds, one for each initial rate.
    """

    curves: list[list[float]]
    metrics: list[float]

    @classmethod
    def of(cls, runs: Mapping[Run, Result]) -> Scores:
        """From all runs of a schedule in a cell."""
        by_rate: dict[float, list[Result]] = {}
        for run, result in runs.items():
            by_rate.setdefault(run.lr or 0.0, []).append(result)
        groups = [by_rate[lr] for lr in sorted(by_rate)]
        curves = [
            [fmean(at_point) for at_point in zip(*(capped(r.curve) for r in group), strict=True)] for group in groups
        ]
        return cls(curves, [fmean(r.metric for r in group) for group in groups])

    @property
    def finals(self) -> list[float]:
        """Final losses, by initial rate."""
        return [curve[-1] for curve in self.curves]


Table = dict[Cell, dict[str, Scores]]
"""Scores of each schedule in each cell; a cell has the untuned schedules of its task and horizon."""


def tabulate(results: Mapping[Run, Result], planned: Iterable[Run]) -> Table:
    """Scores wherever all planned runs of a schedule in a cell are there."""
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


def share_to_reach(curve: Sequence[float], target: float) -> float:
    """Share of the run at which its validation loss first is at most `target`; infinite where it never is.

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


def loss_figures(table: Table, learned: str, baseline: str) -> dict[str, float]:
    """Final loss of `learned` at its median and worst rate over `baseline` at its best."""
    pairs = [(row[learned], min(row[baseline].finals)) for row in table.values() if {learned, baseline} <= row.keys()]
    if not pairs:
        return {}
    return {
        f"{learned}_median_over_best_{baseline}": geometric_mean(median(s.finals) / best for s, best in pairs),
        f"{learned}_worst_over_best_{baseline}": geometric_mean(max(s.finals) / best for s, best in pairs),
    }


def step_figures(table: Table, learned: str, baseline: str) -> dict[str, float]:
    """Share of the run that `learned` takes to the final loss of `baseline` at its best; 1 where it never gets there.

    A share that is reached counts as at least one interval of evaluations, as no share can be told from less.
    """
    shares = []
    for row in table.values():
        if {learned, baseline} <= row.keys():
            target = min(row[baseline].finals)
            shares.append(median(share_to_reach(curve, target) for curve in row[learned].curves))
    if not shares:
        return {}
    return {
        f"{learned}_steps_to_best_{baseline}": geometric_mean(max(1.0 / POINTS, min(share, 1.0)) for share in shares),
        f"{learned}_cells_never_at_best_{baseline}": sum(math.isinf(share) for share in shares),
        f"{learned}_cells_measured": len(shares),
    }


def metric_figures(table: Table, learned: str) -> dict[str, float]:
    """Metric of `learned` at its median rate minus the best of all tuned baselines at all rates, in points."""
    gaps = list(metric_gaps(table, learned).values())
    if not gaps:
        return {}
    return {f"{learned}_metric_gap_points_mean": fmean(gaps), f"{learned}_metric_gap_points_worst": min(gaps)}


def metric_gaps(table: Table, learned: str) -> dict[Cell, float]:
    """The gap of each cell, in points."""
    return {
        cell: 100.0 * (median(row[learned].metrics) - max(max(row[name].metrics) for name in TUNED))
        for cell, row in table.items()
        if {learned, *TUNED} <= row.keys()
    }


def win_figures(table: Table, learned: str) -> dict[str, float]:
    """Share of cells in which `learned` at its median rate ends below an untuned schedule."""
    figures = {}
    for rival in UNTUNED:
        wins = [
            median(row[learned].finals) < row[rival].finals[0]
            for row in table.values()
            if {learned, rival} <= row.keys()
        ]
        if wins:
            figures[f"{learned}_wins_over_{rival}"] = fmean(wins)
    return figures


def above_initial(results: Mapping[Run, Result], planned: Iterable[Run]) -> list[Run]:
    """The learned runs that end above their initial validation loss, or not at a number."""
    return [
        run for run in planned if run.policy and run in results and not results[run].curve[-1] <= results[run].curve[0]
    ]
