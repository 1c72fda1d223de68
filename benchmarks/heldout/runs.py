"""The cells of the suite: the plan of all, and the training of one."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.heldout.schedules import LEARNED, RIVALS, Setting, Training
from benchmarks.heldout.tasks import TASKS, USUAL_LR, Problem
from metalr.compare.callback import PROGRESS
from metalr.compare.cell import CellRun, made_with
from metalr.compare.files import write_text
from metalr.compare.grid import rates_about
from metalr.compare.record import Record
from metalr.core.policy import BOOSTING_POLICIES

DECADES = 4.0
"""Width of the range of initial rates about the usual one."""

POINTS = 12
"""Evaluations of a run after the first, evenly spaced; the last one is at its end."""

LOSS = "val/loss"
"""Names the validation loss in a record."""


class Cell(NamedTuple):
    """Names what the figures average over.

    Attributes:
        task: of `TASKS`.
        optimizer: of the task's; "own" for the rivals, which bring theirs.
        steps: horizon T.
    """

    task: str
    optimizer: str
    steps: int

    @property
    def name(self) -> str:
        """The workload's name in compare's report."""
        return f"{self.task}-{self.optimizer}-{self.steps}"


@dataclass(frozen=True)
class Run:
    """Names one training run.

    Attributes:
        task: of `TASKS`.
        optimizer: of the task's, or "own".
        steps: horizon T.
        schedule: of `schedules`.
        rate: initial rate; of a rival its published default.
        seed: of weights, batches and dropout.
        policy: fingerprint, of a learned schedule; "" otherwise.
    """

    task: str
    optimizer: str
    steps: int
    schedule: str
    rate: float
    seed: int
    policy: str = ""

    @property
    def cell(self) -> Cell:
        """Task, optimizer and horizon."""
        return Cell(self.task, self.optimizer, self.steps)


@dataclass(frozen=True)
class HeldOutRun(CellRun):
    """Trains one run of the suite in a plain loop.

    Attributes:
        key: which run.
        out: the suite's folder.
        root: folder of the real data; None for the hub.
        source: name or file of a learned schedule's policy.
    """

    key: Run
    out: Path
    root: str | None = None
    source: str = ""

    @property
    def workload(self) -> str:
        """Names task, optimizer and horizon."""
        return self.key.cell.name

    @property
    def schedule(self) -> str:
        """Names the schedule."""
        return self.key.schedule

    @property
    def rate(self) -> float:
        """Initial rate."""
        return self.key.rate

    @property
    def seed(self) -> int:
        """Seed of weights, batches and dropout."""
        return self.key.seed

    @property
    def metric(self) -> str:
        """Names the validation loss."""
        return LOSS

    @property
    def name(self) -> str:
        """Unique in the suite; runs of another policy have another folder, so that they stay beside each other."""
        workload, schedule, *rest = super().name.split("/")
        return "/".join([workload, "-".join(filter(None, (schedule, self.key.policy))), *rest])

    def fingerprint(self) -> str:
        """Digests the run's key, the task and the number of evaluations."""
        text = json.dumps([asdict(self.key), TASKS[self.key.task].title, POINTS])
        return hashlib.sha256(text.encode()).hexdigest()

    def command(self) -> list[str]:
        """Gives the command that runs this run's task and schedule."""
        return ["python", "-m", "benchmarks.heldout", f"--only={self.key.task}", f"--schedules={self.schedule}"]

    def train(self) -> Record:
        """Trains, evaluating at `POINTS` evenly spaced steps."""
        key = self.key
        task = TASKS[key.task]
        problem = task.make(self.root, key.seed)
        training = Setting(key.optimizer, key.schedule, key.rate, key.steps, self.source).start(problem)
        start = time.process_time()
        due = [round(key.steps * i / POINTS) for i in range(POINTS + 1)]
        losses: list[float] = []
        rates: list[float] = []
        seconds: list[float] = []
        for step in range(key.steps + 1):
            while len(losses) <= POINTS and due[len(losses)] == step:  # more than one of them where steps are few
                losses.append(_evaluate(training, problem))
                rates.append(training.rate)
                seconds.append(time.process_time() - start)
                self._note(step, seconds[-1])
            if step < key.steps:
                training.step(problem.loss())
        with training.evaluation():
            metric = problem.val_metric()
        return Record(
            fingerprint=self.fingerprint(),
            workload=self.workload,
            schedule=self.schedule,
            rate=key.rate,
            seed=key.seed,
            steps=key.steps,
            epoch_steps=None,
            seconds=time.process_time() - start,
            first_loss=losses[0],
            final={LOSS: losses[-1], metric_name(key.task): metric},
            test={},
            curves={LOSS: (due, losses), "lr": (due[1:], rates[1:]), "seconds": (due, seconds)},
            made_with=made_with(),
        )

    def _note(self, step: int, seconds: float) -> None:
        note = {"step": step, "total": self.key.steps, "epoch": None, "seconds": seconds}
        write_text(self.folder / PROGRESS, json.dumps(note))


def metric_name(task: str) -> str:
    """Names a task's metric in a record."""
    return f"val/{TASKS[task].metric}"


def _evaluate(training: Training, problem: Problem) -> float:
    with training.evaluation():
        return problem.val_loss()


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


def flush_denormals() -> None:
    """Counts denormals, which a network that diverges is full of, as zero: they are slow."""
    torch.set_flush_denormal(True)
