"""What the suite of long runs has."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.long.tasks import TASKS, USUAL_LR
from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.suite import Suite

SUITE = Suite(
    "long",
    "Long runs",
    """The learned schedule beside tuned ones for 20,000 steps of real data, and for 2,000. Most of what meta-training
draws has at most 5,000 steps, and its transformers and convnets a few hundred, so that this is about what a policy
does far beyond them. Two kinds of work and one seed are few: they can show that long runs fail, and not by how little
they succeed.""",
    TASKS,
    USUAL_LR,
    learned=("default",),
    baselines=("linear_warmup", "cosine", "prodigy_plain_cosine", "schedule_free_adamw"),
    points=10,
    rates=5,
    seeds=1,
    decades=2.0,
)


class LongRun(SuiteRun):
    """Trains one long run."""

    suite: ClassVar[Suite] = SUITE
