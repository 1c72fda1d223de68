"""The suite's figures as numbers.

Of a schedule in a cell, each initial rate gives one number, its mean over seeds; "best", "median" and "worst" are
taken over the initial rates. Losses are compared as ratios, of which the geometric mean over cells is taken, with a
bootstrap interval over the cells.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, geometric_mean, median

from benchmarks.heldout.runs import POINTS
from benchmarks.heldout.schedules import ORDER, TUNED
from benchmarks.suites.runs import Run
from benchmarks.suites.schedules import LEARNED, RIVALS
from benchmarks.suites.table import Result, Scores, Table, tabulate
from metalr.compare.files import write_text
from metalr.compare.metrics import bootstrap

BASELINES = {"default": "cosine", "anytime": "constant"}
"""What each learned schedule is compared with: a schedule that is given the horizon if it is, else one that is not."""

METRICS = {"default": "metric learned", "anytime": "metric anytime"}
"""Columns of the learned schedules' metrics at their median rate."""

BEST_METRIC = "metric best tuned"
"""Column of the best metric of all tuned schedules at all rates."""

Row = dict[str, float | int | str | None]
"""One cell: `task`, `optimizer`, `steps`, and its losses and metrics by name; None where they are not complete."""


@dataclass(frozen=True)
class Findings:
    """Holds all that the page says, as numbers.

    Attributes:
        command: that the suite was run by.
        summary: final loss over cosine's at its best rate, geometric means over cells, from the best, the median and
            the worst rate, by schedule.
        by_rate: the same from each initial rate, ascending.
        figures: by name.
        intervals: of some figures, 95 %.
        cells: rows of the table of cells.
        above_initial: the learned runs that end above their initial validation loss, or not at a number.
        learned_runs, done, planned: numbers of runs.
        core_minutes: of one core, all runs together.
    """

    command: str
    summary: dict[str, list[float]]
    by_rate: dict[str, list[float]]
    figures: dict[str, float]
    intervals: dict[str, list[float]]
    cells: list[Row]
    above_initial: list[Run]
    learned_runs: int
    done: int
    planned: int
    core_minutes: float

    @classmethod
    def of(cls, results: Mapping[Run, Result], planned: Sequence[Run], command: str) -> Findings:
        """Works out all figures of the runs that are there."""
        table = tabulate(results, planned)
        cells = cell_rows(table)
        done = [run for run in planned if run in results]
        ratios = ratios_of(cells)
        figures: dict[str, float] = {name: geometric_mean(each) for name, each in ratios.items() if each}
        for learned, baseline in BASELINES.items():
            figures |= step_figures(table, learned, baseline)
        for learned in LEARNED:
            figures |= metric_figures(cells, learned) | win_figures(cells, learned)
        return cls(
            command=command,
            summary=summary(table),
            by_rate={name: means for name in (*LEARNED, *TUNED) if (means := ratios_by_rate(table, name))},
            figures=figures,
            intervals=intervals(ratios),
            cells=cells,
            above_initial=above_initial(results, planned),
            learned_runs=sum(bool(run.policy) for run in done),
            done=len(done),
            planned=len(planned),
            core_minutes=sum(results[run].seconds for run in done) / 60,
        )

    def save(self, path: Path) -> None:
        """Writes the figures as JSON."""
        write_text(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Findings:
        """Reads what `save` wrote."""
        stored = json.loads(path.read_text())
        return cls(**stored | {"above_initial": [Run(**run) for run in stored["above_initial"]]})


def cell_rows(table: Table) -> list[Row]:
    """Lists the cells with their losses and metrics."""
    return [dict(cell._asdict()) | _cell(row) for cell, row in table.items()]


def _cell(row: Mapping[str, Scores]) -> Row:
    found: Row = {"cosine best": _at(row, "cosine", min)}
    for name in LEARNED:
        found |= {f"{name} median": _at(row, name, median), f"{name} worst": _at(row, name, max)}
    found |= {"constant best": _at(row, "constant", min)} | {name: _at(row, name, min) for name in RIVALS}
    for name, column in METRICS.items():
        found[column] = median(row[name].metrics) if name in row else None
    complete = row.keys() >= {*TUNED}
    return found | {BEST_METRIC: max(max(row[name].metrics) for name in TUNED) if complete else None}


def _at(row: Mapping[str, Scores], name: str, pick: Callable[[Sequence[float]], float]) -> float | None:
    return pick(row[name].finals) if name in row else None


def _pairs(cells: Iterable[Row], first: str, second: str) -> list[tuple[float, float]]:
    """Two columns wherever both have a number."""
    return [(a, b) for row in cells if (a := row.get(first)) is not None and (b := row.get(second)) is not None]


def ratios_of(cells: Sequence[Row]) -> dict[str, list[float]]:
    """Divides the final loss of each learned schedule, at its median and worst rate, by its baseline's best."""
    ratios = {}
    for learned, baseline in BASELINES.items():
        for which in ("median", "worst"):
            pairs = _pairs(cells, f"{learned} {which}", f"{baseline} best")
            ratios[f"{learned}_{which}_over_best_{baseline}"] = [own / best for own, best in pairs]
    return ratios


def intervals(ratios: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Works out the 95 % interval over the cells of each geometric mean, where there are two cells or more."""
    found = {name: bootstrap([math.log(ratio) for ratio in each]) for name, each in ratios.items()}
    return {name: [math.exp(each.low), math.exp(each.high)] for name, each in found.items() if each}


def summary(table: Table) -> dict[str, list[float]]:
    """Compares every schedule with cosine at its best rate: from its best, its median and its worst rate."""
    rows = {name: [row for row in table.values() if {name, "cosine"} <= row.keys()] for name in ORDER}
    return {
        name: [
            geometric_mean(pick(row[name].finals) / min(row["cosine"].finals) for row in each)
            for pick in (min, median, max)
        ]
        for name, each in rows.items()
        if each
    }


def ratios_by_rate(table: Table, name: str) -> list[float]:
    """Compares a schedule with cosine at its best rate, from each of its initial rates; empty without a cell."""
    rows = [row for row in table.values() if {name, "cosine"} <= row.keys()]
    ratios = [[final / min(row["cosine"].finals) for final in row[name].finals] for row in rows]
    return [geometric_mean(at_rate) for at_rate in zip(*ratios, strict=True)]


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


def step_figures(table: Table, learned: str, baseline: str) -> dict[str, float]:
    """Measures the share of the run that `learned` takes to the final loss of `baseline` at its best.

    It is 1 where it never gets there. A share that is reached counts as at least one interval of evaluations, as no
    share can be told from less.
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


def metric_figures(cells: Iterable[Row], learned: str) -> dict[str, float]:
    """Compares the metric of `learned` at its median rate with the best of all tuned schedules, in points."""
    gaps = [100.0 * (own - best) for own, best in _pairs(cells, METRICS[learned], BEST_METRIC)]
    if not gaps:
        return {}
    return {f"{learned}_metric_gap_points_mean": fmean(gaps), f"{learned}_metric_gap_points_worst": min(gaps)}


def win_figures(cells: Sequence[Row], learned: str) -> dict[str, float]:
    """Counts the share of cells in which `learned` at its median rate ends below a rival."""
    pairs = {f"{learned}_wins_over_{rival}": _pairs(cells, f"{learned} median", rival) for rival in RIVALS}
    return {name: fmean(own < other for own, other in each) for name, each in pairs.items() if each}


def above_initial(results: Mapping[Run, Result], planned: Iterable[Run]) -> list[Run]:
    """Lists the learned runs that end above their initial validation loss, or not at a number."""
    return [
        run for run in planned if run.policy and run in results and not results[run].curve[-1] <= results[run].curve[0]
    ]
