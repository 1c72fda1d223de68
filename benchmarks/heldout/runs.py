"""One run of the suite, and the plan of all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from benchmarks.heldout.schedules import LEARNED, TUNED, UNTUNED, Setting
from benchmarks.heldout.tasks import TASKS, USUAL_LR
from metalr.core.policy import BOOSTING_POLICIES

DECADES = 4.0
"""Width of the grid of initial rates about the usual one."""

POINTS = 12
"""Evaluations of a run after the first, evenly spaced; the last one is at its end."""


class Cell(NamedTuple):
    """What the figures average over.

    Attributes:
        task: of `TASKS`.
        optimizer: of the task's; "own" for the untuned schedules, which bring theirs.
        steps: horizon T.
    """

    task: str
    optimizer: str
    steps: int


@dataclass(frozen=True)
class Run:
    """One training run; its fields are the key under which its result is stored.

    Attributes:
        task: of `TASKS`.
        optimizer: of the task's, or "own".
        steps: horizon T.
        schedule: of `schedules`.
        lr: initial rate; None for an untuned schedule.
        seed: of weights, batches and dropout.
        policy: fingerprint, of a learned schedule; "" otherwise.
    """

    task: str
    optimizer: str
    steps: int
    schedule: str
    lr: float | None
    seed: int
    policy: str = ""

    @property
    def cell(self) -> Cell:
        """Task, optimizer and horizon."""
        return Cell(self.task, self.optimizer, self.steps)


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        curve: validation loss before the first step and at `POINTS` evenly spaced ones, the last at the end.
        metric: at the end, in [0, 1].
        seconds: of one core.
    """

    curve: tuple[float, ...]
    metric: float
    seconds: float


def train(run: Run, root: str | None, policy: str = "") -> Result:
    """Does one run in a plain loop.

    Args:
        run: what to do.
        root: folder of the real data; None for the hub.
        policy: name or file of a learned schedule's policy.
    """
    problem = TASKS[run.task].make(root, run.seed)
    training = Setting(run.optimizer, run.schedule, run.lr, run.steps, policy).start(problem)
    start = time.process_time()
    due = [round(run.steps * i / POINTS) for i in range(POINTS + 1)]
    curve: list[float] = []
    for step in range(run.steps + 1):
        while len(curve) <= POINTS and due[len(curve)] == step:  # more than one of them where steps are few
            with training.evaluation():
                curve.append(problem.val_loss())
        if step < run.steps:
            training.step(problem.loss())
    with training.evaluation():
        metric = problem.val_metric()
    return Result(tuple(curve), metric, time.process_time() - start)


def initial_lrs(optimizer: str, rates: int) -> list[float]:
    """The grid: log-spaced over `DECADES` about the usual rate, to six digits, so that a stored one is found again."""
    exponents = [DECADES * (i / (rates - 1) - 0.5) for i in range(rates)]
    return [float(f"{USUAL_LR[optimizer] * 10**exponent:.6g}") for exponent in exponents]


def plan(
    tasks: Sequence[str],
    schedules: Sequence[str],
    rates: int,
    seeds: int,
    scale: float,
    policies: Mapping[str, str],
) -> list[Run]:
    """All runs, task by task.

    Args:
        tasks: names.
        schedules: names.
        rates: initial rates of each optimizer.
        seeds: runs from each rate.
        scale: of the horizons.
        policies: fingerprint of each policy, by its name as `policy_of` gives it.
    """
    runs: list[Run] = []
    for name in tasks:
        for horizon in TASKS[name].horizons:
            steps = max(1, round(scale * horizon))
            for schedule in schedules:
                runs += _of_schedule(name, steps, schedule, rates, seeds, policies.get(policy_of(name, schedule), ""))
    return runs


def policy_of(task: str, schedule: str) -> str:
    """Name of the policy that a learned schedule takes, one of `BOOSTING_POLICIES` for trees; "" for others."""
    if schedule not in LEARNED:
        return ""
    return BOOSTING_POLICIES[LEARNED.index(schedule)] if TASKS[task].is_boosted else schedule


def _of_schedule(task: str, steps: int, schedule: str, rates: int, seeds: int, policy: str) -> list[Run]:
    if schedule in UNTUNED:
        if TASKS[task].is_boosted:
            return []
        return [Run(task, "own", steps, schedule, None, seed) for seed in range(seeds)]
    return [
        Run(task, optimizer, steps, schedule, lr, seed, policy)
        for optimizer in TASKS[task].optimizers
        for lr in initial_lrs(optimizer, rates)
        for seed in range(seeds)
    ]


def predicted_seconds(runs: Sequence[Run], root: str | None, sources: Mapping[str, str]) -> float:
    """Seconds of one core that runs will take, by a few steps of each task, optimizer and kind of schedule here.

    Args:
        runs: what is left to do.
        root: folder of the real data.
        sources: name or file of each policy, by its name as `policy_of` gives it.
    """
    kinds: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        kind = run.schedule if run.schedule in (*LEARNED, *UNTUNED) else TUNED[0]
        kinds.setdefault((run.task, run.optimizer, kind), []).append(run)
    total = 0.0
    for (task, optimizer, schedule), group in kinds.items():
        usual = None if optimizer == "own" else USUAL_LR[optimizer]
        probes = [Run(task, optimizer, steps, schedule, usual, 0) for steps in (POINTS, 3 * POINTS)]
        policy = sources.get(policy_of(task, schedule), "")
        times = [train(probe, root, policy).seconds for probe in (probes[0], *probes)][1:]
        step = max(0.0, times[1] - times[0]) / (2 * POINTS)
        total += sum(times[0] + step * (run.steps - POINTS) for run in group)
    return total


def one_thread() -> None:
    """Sets this process to one thread; denormals, which a dying network is full of, count as zero."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
