"""What the final suite runs."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.final.tasks import TASKS, USUAL_LR
from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.suite import Suite

SUITE = Suite(
    "final",
    "The final suite",
    """Learned schedules beside tuned and untuned ones, on tasks that no meta-training draws and by which no checkpoint,
feature or setting was chosen. The suite is run once for each shipped policy, after that is chosen. The development
suite, which has taught, has a page of its own; it has the data of two of these tasks in another form, and some of the
networks' kinds are drawn. In the tasks of the part "all new" neither data nor network is known from anywhere.""",
    TASKS,
    USUAL_LR,
    baselines=(
        "linear_warmup",
        "cosine_warmup",
        "cosine",
        "one_cycle",
        "constant",
        "finder_one_cycle",
        "finder_cosine",
        "prodigy_cosine",
        "prodigy_plain_cosine",
        "d_adaptation_cosine",
        "schedule_free_adamw",
        "schedule_free_sgd",
        "dog",
    ),
    points=10,
    rates=7,
    seeds=2,
)


class FinalRun(SuiteRun):
    """Trains one run of the final suite."""

    suite: ClassVar[Suite] = SUITE
