"""The figures of a grid: what its finished cells say about each schedule on each workload."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from metalr.compare.design import Design, Objective
from metalr.compare.metrics import (
    Summary,
    better,
    finite_or_worst,
    lr_sensitivity,
    share_of_decades,
    steps_to,
    summarise,
    worst,
)
from metalr.compare.record import Record

Runs = dict[float, dict[int, Record]]
"""Finished cells of one schedule on one workload, by rate (ascending) and seed."""


@dataclass(frozen=True)
class Speed:
    """Holds the time to the threshold of some runs; infinity where half of them or more did not reach it.

    Attributes:
        runs: number of runs.
        reached: number of those that reached it.
        steps, epochs, seconds: medians over the runs; epochs are NaN where an epoch's length is not known.
        each: steps of each run, ascending.
    """

    runs: int
    reached: int
    steps: float
    epochs: float
    seconds: float
    each: tuple[float, ...]


@dataclass(frozen=True)
class Standing:
    """Sums up one schedule on one workload.

    Attributes:
        schedule: its name.
        runs: its finished cells.
        rate: the tuned rate: the one with the best mean over seeds of the final metric.
        tuned: the final metric at that rate, over seeds.
        median, worst: over seeds, of the median and the worst over rates of the final metric.
        metrics: every final metric of validation and test at the tuned rate, over seeds.
        sensitivity: to the rate (Wortsman et al. 2023), over seeds, in the unit of the loss.
        decades: share of the decades of rates within 5 % of the least loss of all schedules.
        tuned_speed, any_speed: time to the threshold at the tuned rate, and of the runs at all rates.
        cost_runs, cost_steps, cost_seconds: of the whole sweep over rates, for one seed (the mean).
    """

    schedule: str
    runs: Runs
    rate: float
    tuned: Summary
    median: Summary
    worst: Summary
    metrics: Mapping[str, Summary]
    sensitivity: Summary
    decades: float
    tuned_speed: Speed
    any_speed: Speed
    cost_runs: float
    cost_steps: float
    cost_seconds: float


@dataclass(frozen=True)
class Result:
    """Sums up one workload.

    Attributes:
        workload: of the design.
        standings: of each schedule that has a finished cell.
        baseline: the best-tuned of the schedules that are not the candidate, if there is one.
        threshold: that is to be reached; NaN without a baseline and a given one.
        initial_loss: the first training loss at the lowest rate, mean over runs: that of no training.
        same_start: whether the first training loss was the same for all runs of a seed.
    """

    workload: Objective
    standings: list[Standing]
    baseline: Standing | None
    threshold: float
    initial_loss: float
    same_start: bool

    @property
    def swept(self) -> bool:
        """Whether a schedule has more than one initial rate."""
        return any(len(each.runs) > 1 for each in self.standings)

    def standing(self, schedule: str) -> Standing | None:
        """Finds the standing of a schedule, if it has one."""
        return next((each for each in self.standings if each.schedule == schedule), None)


def by_workload(design: Design, records: Iterable[Record]) -> list[Result]:
    """Sums up the workloads that have a finished cell.

    Raises:
        ValueError: where none has.
    """
    by_cell = {(r.workload, r.schedule, r.rate, r.seed): r for r in records}
    if not by_cell:
        raise ValueError("records: none; a report needs one finished cell or more")
    results = []
    for workload in design.workloads:
        runs = {name: _runs(by_cell, workload.name, name) for name in design.schedule_names}
        if runs := {name: each for name, each in runs.items() if each}:
            results.append(_result(design, workload, runs))
    return results


def final(record: Record, workload: Objective) -> float:
    """Reads the final metric of a run, the worst value where it diverged."""
    return finite_or_worst(record.final[workload.metric], workload.mode)


def _runs(by_cell: Mapping[tuple[str, str, float, int], Record], workload: str, schedule: str) -> Runs:
    runs: Runs = {}
    for (w, s, rate, seed), record in sorted(by_cell.items(), key=lambda item: item[0][2:]):
        if (w, s) == (workload, schedule):
            runs.setdefault(rate, {})[seed] = record
    return runs


def _result(design: Design, workload: Objective, runs: Mapping[str, Runs]) -> Result:
    rates = {name: _tuned_rate(each, workload) for name, each in runs.items()}
    means = {name: fmean(final(r, workload) for r in runs[name][rate].values()) for name, rate in rates.items()}
    best: str | None = None
    for name in means:
        if name != design.candidate and (best is None or better(means[name], means[best], workload.mode)):
            best = name
    threshold = workload.threshold
    if threshold is None:
        threshold = means[best] if best is not None else math.nan
    lowest = min(rate for each in runs.values() for rate in each)
    initial = fmean(r.first_loss for each in runs.values() for r in each.get(lowest, {}).values())
    least = min(_mean_loss(seeds, workload) for each in runs.values() for seeds in each.values())
    standings = [_standing(name, each, rates[name], workload, threshold, initial, least) for name, each in runs.items()]
    baseline = next((each for each in standings if each.schedule == best), None)
    return Result(workload, standings, baseline, threshold, initial, _same_start(runs.values()))


def _standing(
    name: str, runs: Runs, rate: float, workload: Objective, threshold: float, initial: float, least: float
) -> Standing:
    seeds = sorted({seed for each in runs.values() for seed in each})
    over_rates = {s: [final(each[s], workload) for each in runs.values() if s in each] for s in seeds}
    losses = {s: [each[s].final[workload.loss] for each in runs.values() if s in each] for s in seeds}
    every = [record for each in runs.values() for record in each.values()]
    tuned = list(runs[rate].values())
    bad = min if workload.mode == "max" else max
    names = dict.fromkeys(name for record in tuned for name in (*record.test, *record.final))
    return Standing(
        schedule=name,
        runs=runs,
        rate=rate,
        tuned=summarise([final(record, workload) for record in tuned]),
        median=summarise([median(values) for values in over_rates.values()]),
        worst=summarise([bad(values) for values in over_rates.values()]),
        metrics={each: summarise(_values(tuned, each)) for each in names},
        sensitivity=summarise([lr_sensitivity(values, initial) for values in losses.values()]),
        decades=share_of_decades(list(runs), [_mean_loss(each, workload) for each in runs.values()], least),
        tuned_speed=_speed(tuned, workload, threshold),
        any_speed=_speed(every, workload, threshold),
        cost_runs=len(every) / len(seeds),
        cost_steps=sum(record.steps for record in every) / len(seeds),
        cost_seconds=sum(record.seconds for record in every) / len(seeds),
    )


def _values(records: Iterable[Record], name: str) -> list[float]:
    return [record.final[name] if name in record.final else record.test[name] for record in records]


def _tuned_rate(runs: Runs, workload: Objective) -> float:
    """Returns the best rate, the first of several."""
    chosen, value = next(iter(runs)), worst(workload.mode)
    for rate, seeds in runs.items():
        mean = fmean(final(record, workload) for record in seeds.values())
        if better(mean, value, workload.mode):
            chosen, value = rate, mean
    return chosen


def _mean_loss(seeds: Mapping[int, Record], workload: Objective) -> float:
    return fmean(finite_or_worst(record.final[workload.loss], "min") for record in seeds.values())


def _speed(records: Iterable[Record], workload: Objective, threshold: float) -> Speed:
    steps: list[float] = []
    epochs: list[float] = []
    seconds: list[float] = []
    for record in records:
        step = steps_to(*record.curves[workload.metric], threshold, workload.mode)
        steps.append(step)
        epochs.append(step / record.epoch_steps if record.epoch_steps else math.nan)
        seconds.append(float(np.interp(step, *record.curves["seconds"])) if math.isfinite(step) else math.inf)
    medians = (_upper_median(steps), _upper_median(epochs), _upper_median(seconds))
    return Speed(len(steps), sum(map(math.isfinite, steps)), *medians, each=tuple(sorted(steps)))


def _upper_median(values: Iterable[float]) -> float:
    """Returns the upper of the two in the middle: a value even where the other is infinite; NaN of NaN."""
    ordered = sorted(values)
    return math.nan if any(map(math.isnan, ordered)) else ordered[len(ordered) // 2]


def _same_start(runs: Iterable[Runs]) -> bool:
    """Tests whether all runs start at the same loss, at the first logged step where every step is logged."""
    starts: dict[int, set[float]] = {}
    for each in runs:
        for seeds in each.values():
            for seed, record in seeds.items():
                if record.curves["lr"][0][0] == 1:
                    starts.setdefault(seed, set()).add(record.first_loss)
    return all(len(losses) == 1 for losses in starts.values())
