"""The list of all runs of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.suites.runs import Run
from benchmarks.suites.schedules import rates_of, runs_with
from benchmarks.suites.suite import Suite


def plan(
    suite: Suite,
    policies: Mapping[str, str],
    tasks: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
    rates: int | None = None,
    seeds: int | None = None,
    scale: float = 1.0,
) -> list[Run]:
    """Lists all runs, task by task.

    Args:
        suite: of which.
        policies: fingerprint of each policy, by its name as `Suite.policy_of` gives it.
        tasks: names; None for all.
        horizons: optimizer steps; None for those that each task has by default.
        rates: initial rates of each optimizer; None for the suite's number.
        seeds: runs from each rate; None for the suite's number.
        scale: of the horizons.
    """
    return [
        Run(name, optimizer, max(1, round(scale * horizon)), schedule, rate, seed, policies.get(policy, ""))
        for name in tasks or suite.tasks
        for horizon in suite.tasks[name].chosen(horizons)
        for schedule in suite.schedules
        for policy in [suite.policy_of(name, schedule)]
        for optimizer in suite.tasks[name].optimizers
        if runs_with(schedule, optimizer)
        for rate in rates_of(schedule, suite.usual[optimizer], suite.decades, rates or suite.rates)
        for seed in range(seeds or suite.seeds)
    ]
