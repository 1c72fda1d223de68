"""What the development suite runs."""

from __future__ import annotations

from typing import ClassVar

from benchmarks.heldout.tasks import TASKS, USUAL_LR
from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.suite import Suite

SUITE = Suite(
    "heldout",
    "The development suite",
    """Learned schedules beside tuned and untuned ones, on real data. No task of meta-training is made of it, digits
apart: meta-training draws these, all rows, and most of the tasks that choose a checkpoint are made of them.

The suite is *not* held out any more, for it has taught: the policy `boosting_anytime` and the task family
`SentenceTasks` were made after cells of it had failed. What a shipped policy does on work that has taught nothing is
on the page of the final suite, which is run once for each shipped policy.""",
    TASKS,
    USUAL_LR,
)


class HeldOutRun(SuiteRun):
    """Trains one run of the development suite."""

    suite: ClassVar[Suite] = SUITE
