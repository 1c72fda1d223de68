"""What a grid says about its candidate: claims with their intervals, and who wins against whom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from metalr.compare.grid import Grid, Workload
from metalr.compare.metrics import LEVEL, Paired, better, holm, paired, wins
from metalr.compare.record import Record
from metalr.compare.summary import Result, Standing, by_workload, final


@dataclass(frozen=True)
class Claim:
    """The candidate against a baseline, over the same seeds.

    Attributes:
        workload, candidate, baseline: names, with how the rate was chosen.
        paired: candidate minus baseline, of the final metric.
        p: adjusted for the number of claims of the report (Holm), or None.
        verdict: "better" or "worse" only where p is below 0.05, else why nothing is claimed.
    """

    workload: str
    candidate: str
    baseline: str
    paired: Paired
    p: float | None
    verdict: str


@dataclass(frozen=True)
class Analysis:
    """A grid's figures.

    Attributes:
        results: by workload.
        claims: the candidate against the baselines.
        tuned_wins, same_rate_wins: share of runs that the row's schedule wins against the column's, (S, S), the
            diagonal NaN: of (workload, seed) with tuned rates, and of (workload, rate, seed).
    """

    grid: Grid
    results: list[Result]
    claims: list[Claim]
    tuned_wins: np.ndarray
    same_rate_wins: np.ndarray


def analyse(grid: Grid, records: Iterable[Record]) -> Analysis:
    """All figures of the finished cells.

    Raises:
        ValueError: where there is none.
    """
    results = by_workload(grid, records)
    names = [schedule.name for schedule in grid.ways]
    pairs = [[(a, b) for b in names] for a in names]
    return Analysis(
        grid,
        results,
        _claims(grid, results),
        np.array([[_tuned_wins(results, *pair) for pair in row] for row in pairs]),
        np.array([[_same_rate_wins(results, *pair) for pair in row] for row in pairs]),
    )


def _claims(grid: Grid, results: Iterable[Result]) -> list[Claim]:
    drafts: list[tuple[Result, str, str, Paired]] = []
    for result in results:
        own, best = result.standing(grid.candidate), result.baseline
        if own is None or best is None:
            continue
        tuned = f"{best.schedule}, tuned ({best.cost_runs:.3g} runs)"
        at_best = _at(best, best.rate, result.workload)
        any_rate = _medians(own, result.workload)
        drafts.append((result, f"{own.schedule}, untuned (1 run)", tuned, _pair(any_rate, at_best)))
        own_tuned = f"{own.schedule}, tuned ({own.cost_runs:.3g} runs)"
        drafts.append((result, own_tuned, tuned, _pair(_at(own, own.rate, result.workload), at_best)))
        for other in result.standings:
            if other.schedule != own.schedule and (len(own.runs) > 1 or len(other.runs) > 1):
                name = f"{other.schedule}, untuned (1 run)"
                pair = _pair(any_rate, _medians(other, result.workload))
                drafts.append((result, f"{own.schedule}, untuned (1 run)", name, pair))
    tested = [i for i, (*_, pair) in enumerate(drafts) if pair.p is not None]
    adjusted = dict(zip(tested, holm([p for *_, pair in drafts if (p := pair.p) is not None]), strict=True))
    return [
        Claim(result.workload.name, own, other, pair, adjusted.get(i), _verdict(result, pair, adjusted.get(i)))
        for i, (result, own, other, pair) in enumerate(drafts)
    ]


def _at(standing: Standing, rate: float, workload: Workload) -> dict[int, float]:
    return {seed: final(record, workload) for seed, record in standing.runs[rate].items()}


def _medians(standing: Standing, workload: Workload) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for seeds in standing.runs.values():
        for seed, record in seeds.items():
            values.setdefault(seed, []).append(final(record, workload))
    return {seed: median(each) for seed, each in values.items()}


def _pair(first: Mapping[int, float], second: Mapping[int, float]) -> Paired:
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return Paired(0, math.nan, None, None)
    return paired([first[seed] for seed in seeds], [second[seed] for seed in seeds])


def _verdict(result: Result, pair: Paired, p: float | None) -> str:
    if pair.n < 2:
        return f"{pair.n} common seed: no claim"
    if p is None:
        return "a run diverged: no interval, no claim"
    if p >= 1 - LEVEL:
        return "no difference shown"
    return "better" if better(pair.difference, 0.0, result.workload.mode) else "worse"


def _tuned_wins(results: Iterable[Result], row: str, column: str) -> float:
    shares = []
    for result in results:
        a, b = result.standing(row), result.standing(column)
        if row != column and a is not None and b is not None:
            first, second = _at(a, a.rate, result.workload), _at(b, b.rate, result.workload)
            shares += _shares(first, second, result.workload)
    return fmean(shares) if shares else math.nan


def _same_rate_wins(results: Iterable[Result], row: str, column: str) -> float:
    shares = []
    for result in results:
        a, b = result.standing(row), result.standing(column)
        if row != column and a is not None and b is not None:
            for rate in a.runs.keys() & b.runs.keys():
                first, second = _at(a, rate, result.workload), _at(b, rate, result.workload)
                shares += _shares(first, second, result.workload)
    return fmean(shares) if shares else math.nan


def _shares(first: Mapping[int, float], second: Mapping[int, float], workload: Workload) -> list[float]:
    return [wins([first[s]], [second[s]], workload.mode) for s in sorted(first.keys() & second.keys())]
