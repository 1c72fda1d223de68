"""The cells of the suite: what they train, and the list of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.finetuning.tasks import TASKS, USUAL_LR
from benchmarks.suites.runs import Run, SuiteRun
from benchmarks.suites.schedules import RIVALS
from metalr.compare.grid import rates_about

DECADES = 4.0
"""Width of the range of initial rates about the usual one."""

POINTS = 5
"""Evaluations of a run after the first, evenly spaced; each costs about as much as eight steps."""

LEARNED = "default"

BASELINES = ("linear_warmup", "cosine")
"""Schedules that are tuned: the learned one is held against the better of them."""

OWN = ("prodigy_cosine", "schedule_free_adamw")
"""Optimizers of their own, at their published defaults."""

ORDER = (LEARNED, *BASELINES, "constant", *OWN)
"""All schedules, as the report has them."""


class FineTuningRun(SuiteRun):
    """Fine-tunes one network once."""

    tasks = TASKS
    points = POINTS
    module = "benchmarks.finetuning"


def plan(
    tasks: Sequence[str],
    schedules: Sequence[str],
    horizons: Mapping[str, Sequence[int]],
    rates: int,
    seeds: int,
    scale: float,
    policy: str,
) -> list[Run]:
    """Lists all runs, task by task.

    Args:
        tasks: names.
        schedules: names.
        horizons: of each task, by its name, optimizer steps.
        rates: initial rates of each optimizer.
        seeds: runs from each rate.
        scale: of the horizons.
        policy: fingerprint of the learned schedule's.
    """
    return [
        Run(name, optimizer, max(1, round(scale * steps)), schedule, rate, seed, policy if schedule == LEARNED else "")
        for name in tasks
        for steps in horizons[name]
        for schedule in schedules
        for optimizer in (("own",) if schedule in RIVALS else TASKS[name].optimizers)
        for rate in (
            [RIVALS[schedule].rate] if schedule in RIVALS else rates_about(USUAL_LR[optimizer], DECADES, rates)
        )
        for seed in range(seeds)
    ]
