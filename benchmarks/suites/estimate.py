"""How long the runs that are missing take: measured on a few steps of each task."""

from __future__ import annotations

import time
from collections.abc import Iterable

from benchmarks.suites.finder import BATCHES
from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.schedules import FOUND
from benchmarks.suites.training import Setting

STEPS = 3
"""That are timed, after a first one."""


def core_seconds(runs: Iterable[SuiteRun]) -> float:
    """Estimates the seconds of one core that some runs take together.

    A task's steps and its evaluation are timed once, with a constant rate; loading is left out.
    """
    total = 0.0
    measured: dict[str, tuple[float, float]] = {}
    for run in runs:
        name = run.key.task
        if name not in measured:
            measured[name] = _measure(run)
        step, evaluation = measured[name]
        steps = run.key.steps + (BATCHES if run.schedule in FOUND else 0)
        total += steps * step + (run.suite.points + 2) * evaluation  # the start, and the metric at the end
    return total


def _measure(run: SuiteRun) -> tuple[float, float]:
    problem = run.task.make(run.root, run.seed)
    optimizer = run.task.optimizers[-1]
    training = Setting(optimizer, "constant", run.suite.usual[optimizer], 1).start(problem)
    times = []
    for _ in range(1 + STEPS):
        start = time.process_time()
        training.step(problem.loss())
        times.append(time.process_time() - start)
    start = time.process_time()
    problem.val_loss()
    return sum(times[1:]) / STEPS, time.process_time() - start
