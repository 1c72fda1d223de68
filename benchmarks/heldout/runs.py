"""The cells of the suite: what they train, and the list of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.heldout.tasks import TASKS, USUAL_LR
from benchmarks.suites.runs import Run, SuiteRun
from benchmarks.suites.schedules import LEARNED, RIVALS
from metalr.compare.grid import rates_about
from metalr.core.policy import BOOSTING_POLICIES

DECADES = 4.0
"""Width of the range of initial rates about the usual one."""

POINTS = 12
"""Evaluations of a run after the first, evenly spaced; the last one is at its end."""


class HeldOutRun(SuiteRun):
    """Trains one run of the suite."""

    tasks = TASKS
    points = POINTS
    module = "benchmarks.heldout"


def plan(
    tasks: Sequence[str],
    schedules: Sequence[str],
    rates: int,
    seeds: int,
    scale: float,
    policies: Mapping[str, str],
) -> list[Run]:
    """Lists all runs, task by task.

    Args:
        tasks: names.
        schedules: names.
        rates: initial rates of each optimizer.
        seeds: runs from each rate.
        scale: of the horizons.
        policies: fingerprint of each policy, by its name as `policy_of` gives it.
    """
    return [
        Run(name, optimizer, max(1, round(scale * horizon)), schedule, rate, seed, policies.get(policy, ""))
        for name in tasks
        for horizon in TASKS[name].horizons
        for schedule in schedules
        for policy in [policy_of(name, schedule)]
        for optimizer in _optimizers(name, schedule)
        for rate in _rates(optimizer, schedule, rates)
        for seed in range(seeds)
    ]


def _optimizers(task: str, schedule: str) -> tuple[str, ...]:
    if schedule not in RIVALS:
        return TASKS[task].optimizers
    return () if TASKS[task].is_boosted else ("own",)


def _rates(optimizer: str, schedule: str, rates: int) -> list[float]:
    if schedule in RIVALS:
        return [RIVALS[schedule].rate]
    return rates_about(USUAL_LR[optimizer], DECADES, rates)


def policy_of(task: str, schedule: str) -> str:
    """Names the policy that a learned schedule takes, one of `BOOSTING_POLICIES` for trees; "" for others."""
    if schedule not in LEARNED:
        return ""
    return BOOSTING_POLICIES[LEARNED.index(schedule)] if TASKS[task].is_boosted else schedule
