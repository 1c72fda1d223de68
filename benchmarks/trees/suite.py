"""What the suite of boosted trees has."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.suite import Suite
from benchmarks.trees.tasks import TASKS, USUAL_LR

SUITE = Suite(
    "trees",
    "Boosted trees",
    """The learned schedules beside tuned ones for XGBoost, on real tables. Boosted trees have a learning rate, too, and
what is good depends on the labels: on clean ones a rate that keeps the last trees small leaves the loss far above
what it could be, on noisy ones a high rate memorises.""",
    TASKS,
    USUAL_LR,
    baselines=("linear_warmup", "cosine", "linear", "wsd", "constant"),
    points=10,
    rates=7,
    seeds=2,
)


class TreesRun(SuiteRun):
    """Trains one run of boosted trees."""

    suite: ClassVar[Suite] = SUITE
