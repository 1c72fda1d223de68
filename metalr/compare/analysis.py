"""The analysis of an experiment: claims about its candidate with their intervals, and shares of wins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from statistics import fmean, median

import numpy as np

from metalr.compare.design import Design, Objective
from metalr.compare.metrics import LEVEL, Paired, better, holm, paired, wins
from metalr.compare.record import Record
from metalr.compare.summary import Result, Standing, by_workload, final


class Finding(Enum):
    """States what a paired comparison shows of the first against the second; a claim only where p is below 0.05."""

    BETTER = auto()
    WORSE = auto()
    NO_DIFFERENCE = auto()
    """None is shown."""
    TOO_FEW_SEEDS = auto()
    """Fewer than two seeds in common."""
    DIVERGED = auto()
    """One of the runs has no final value, so that there is no interval."""
    NOTHING_TO_COMPARE = auto()
    """The candidate or every baseline has no finished cell."""


@dataclass(frozen=True)
class Entrant:
    """Names a schedule and how its initial rate was chosen.

    Attributes:
        schedule: its name.
        tuned_over: runs of the sweep that found its rate; None where it is untuned: the median over its rates.
    """

    schedule: str
    tuned_over: float | None = None


@dataclass(frozen=True)
class Claim:
    """Compares the candidate with a baseline over the same seeds.

    Attributes:
        workload: its name.
        candidate, baseline: what is compared.
        paired: candidate minus baseline, of the final metric.
        p: adjusted for the number of claims of the report (Holm), or None.
        finding: what that shows.
    """

    workload: str
    candidate: Entrant
    baseline: Entrant
    paired: Paired
    p: float | None
    finding: Finding


@dataclass(frozen=True)
class Analysis:
    """Holds the figures of an experiment.

    Attributes:
        design: its axes.
        results: by workload.
        claims: the candidate against the baselines.
        tuned_wins, same_rate_wins: share of runs that the row's schedule wins against the column's, (S, S), the
            diagonal NaN: of (workload, seed) with tuned rates, and of (workload, rate, seed).
    """

    design: Design
    results: list[Result]
    claims: list[Claim]
    tuned_wins: np.ndarray
    same_rate_wins: np.ndarray

    def claim(self, workload: str, candidate: Entrant, baseline: Entrant) -> Claim | None:
        """Finds the claim about a pair, if there is one."""
        wanted = (workload, candidate, baseline)
        return next((c for c in self.claims if (c.workload, c.candidate, c.baseline) == wanted), None)


def tuned(standing: Standing) -> Entrant:
    """Names a schedule at its tuned rate."""
    return Entrant(standing.schedule, standing.cost_runs)


def untuned(standing: Standing) -> Entrant:
    """Names a schedule whose rate was not tuned."""
    return Entrant(standing.schedule)


def analyse(design: Design, records: Iterable[Record]) -> Analysis:
    """Works out all figures of the finished cells.

    Raises:
        ValueError: where there is none.
    """
    results = by_workload(design, records)
    names = design.schedule_names
    pairs = [[(a, b) for b in names] for a in names]
    return Analysis(
        design,
        results,
        _claims(design.candidate, results),
        np.array([[_tuned_wins(results, *pair) for pair in row] for row in pairs]),
        np.array([[_same_rate_wins(results, *pair) for pair in row] for row in pairs]),
    )


def _claims(candidate: str, results: Iterable[Result]) -> list[Claim]:
    drafts = [draft for result in results for draft in _drafts(candidate, result)]
    tested = [i for i, (*_, pair) in enumerate(drafts) if pair.p is not None]
    adjusted = dict(zip(tested, holm([p for *_, pair in drafts if (p := pair.p) is not None]), strict=True))
    return [
        Claim(result.workload.name, own, other, pair, adjusted.get(i), _finding(result.workload, pair, adjusted.get(i)))
        for i, (result, own, other, pair) in enumerate(drafts)
    ]


def _drafts(candidate: str, result: Result) -> Iterator[tuple[Result, Entrant, Entrant, Paired]]:
    """Pairs untuned and tuned against the best-tuned baseline; untuned against every baseline that is untuned, too."""
    own, best = result.standing(candidate), result.baseline
    if own is None or best is None:
        return
    at_best = _at(best, best.rate, result.workload)
    any_rate = _medians(own, result.workload)
    yield result, untuned(own), tuned(best), _pair(any_rate, at_best)
    yield result, tuned(own), tuned(best), _pair(_at(own, own.rate, result.workload), at_best)
    for other in result.standings:
        if other.schedule != own.schedule and (len(own.runs) > 1 or len(other.runs) > 1):
            yield result, untuned(own), untuned(other), _pair(any_rate, _medians(other, result.workload))


def _at(standing: Standing, rate: float, workload: Objective) -> dict[int, float]:
    return {seed: final(record, workload) for seed, record in standing.runs[rate].items()}


def _medians(standing: Standing, workload: Objective) -> dict[int, float]:
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


def _finding(workload: Objective, pair: Paired, p: float | None) -> Finding:
    if pair.n < 2:
        return Finding.TOO_FEW_SEEDS
    if p is None:
        return Finding.DIVERGED
    if p >= 1 - LEVEL:
        return Finding.NO_DIFFERENCE
    return Finding.BETTER if better(pair.difference, 0.0, workload.mode) else Finding.WORSE


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


def _shares(first: Mapping[int, float], second: Mapping[int, float], workload: Objective) -> list[float]:
    return [wins([first[s]], [second[s]], workload.mode) for s in sorted(first.keys() & second.keys())]
