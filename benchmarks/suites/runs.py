"""One run of a suite: its key, and its training in a plain loop as a cell of `metalr.compare`."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from benchmarks.suites.finder import find_rate
from benchmarks.suites.problem import Problem
from benchmarks.suites.schedules import FOUND, TITLES
from benchmarks.suites.suite import Suite, Task
from benchmarks.suites.training import Setting, Training
from metalr.compare.callback import PROGRESS
from metalr.compare.cell import CellRun, made_with
from metalr.compare.files import write_text
from metalr.compare.record import Record

LOSS = "val/loss"
"""Names the validation loss in a record."""

CHANCE = "val/chance"
"""Names, in a record, the metric of the best answer that is the same for all held-out rows."""


class Cell(NamedTuple):
    """Names what the figures average over.

    Attributes:
        task: name of one of the suite's.
        optimizer: of the task's; a rival with an optimizer of its own stands in its base's cells.
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
        task: name of one of the suite's.
        optimizer: of the cell.
        steps: horizon T.
        schedule: of `schedules.TITLES`.
        rate: initial rate.
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
class SuiteRun(CellRun):
    """Trains one run of a suite in a plain loop; a subclass, which a worker can import, names the suite.

    Attributes:
        key: which run.
        out: the suite's folder.
        root: folder of the real data; None for the hub.
        source: name or file of a learned schedule's policy.
        suite: that it is of.
    """

    suite: ClassVar[Suite]

    key: Run
    out: Path
    root: str | None = None
    source: str = ""

    @classmethod
    def check(cls, tasks: Sequence[str]) -> None:
        """Looks for what the tasks need, before any work starts."""

    @property
    def task(self) -> Task:
        """What is trained."""
        return self.suite.tasks[self.key.task]

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
        """Digests the run's key, what is trained and by what, and the number of evaluations."""
        text = json.dumps([asdict(self.key), self.task.title, TITLES[self.schedule], self.suite.points])
        return hashlib.sha256(text.encode()).hexdigest()

    def command(self) -> list[str]:
        """Gives the command that runs this run's task and schedule."""
        chosen = [f"--only={self.key.task}", f"--schedules={self.schedule}"]
        return ["python", "-m", f"benchmarks.{self.suite.name}", *chosen]

    def train(self) -> Record:
        """Trains, evaluating at the suite's number of evenly spaced steps."""
        key, points = self.key, self.suite.points
        rate = find_rate(self._problem(), key.optimizer, key.rate) if key.schedule in FOUND else key.rate
        problem = self._problem()
        training = Setting(key.optimizer, key.schedule, rate, key.steps, self.source).start(problem)
        start = time.process_time()
        due = [round(key.steps * i / points) for i in range(points + 1)]
        losses: list[float] = []
        rates: list[float] = []
        seconds: list[float] = []
        for step in range(key.steps + 1):
            while len(losses) <= points and due[len(losses)] == step:  # more than one of them where steps are few
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
            final={LOSS: losses[-1], self.task.metric_name: metric, CHANCE: problem.chance()},
            test={},
            curves={LOSS: (due, losses), "lr": (due[1:], rates[1:]), "seconds": (due, seconds)},
            made_with=made_with(),
        )

    def _problem(self) -> Problem:
        return self.task.make(self.root, self.key.seed)

    def _note(self, step: int, seconds: float) -> None:
        note = {"step": step, "total": self.key.steps, "epoch": None, "seconds": seconds}
        write_text(self.folder / PROGRESS, json.dumps(note))


def _evaluate(training: Training, problem: Problem) -> float:
    with training.evaluation():
        loss = problem.val_loss()
    training.observe(loss)
    return loss
