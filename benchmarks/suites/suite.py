"""What a suite is: its tasks, with what is new in each, its schedules and its sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.suites.problem import Problem
from benchmarks.suites.schedules import GROUPS, LEARNED
from metalr.core.policy import BOOSTING_POLICIES


class Novelty(NamedTuple):
    """Says what of a task meta-training has not had, in a few words each.

    Attributes:
        data, network: "new", or what of it was there.
        optimizer, horizon: the same.
    """

    data: str
    network: str
    optimizer: str = "drawn"
    horizon: str = "drawn"

    @property
    def is_whole(self) -> bool:
        """Whether data and network are new without a reserve, such as "new; the development suite has it"."""
        return all(part.partition(":")[0] == "new" for part in (self.data, self.network))


@dataclass(frozen=True)
class Task:
    """Describes a kind of work.

    Attributes:
        title: what it is; runs are of another task where it changes.
        horizons: short and long, optimizer steps.
        make: the problem of a seed, from the data's root (None for the hub) and the seed.
        new: what of it meta-training has not had.
        optimizers: that it is trained with, by name.
        metric: name of what `Problem.metric` gives.
        drawn: whether meta-training draws this very data, so that figures are given without it, too.
        by_default: horizons that are run where none are asked for; none: all.
    """

    title: str
    horizons: tuple[int, int]
    make: Callable[[str | None, int], Problem]
    new: Novelty
    optimizers: tuple[str, ...] = ("sgd", "adamw")
    metric: str = "accuracy"
    drawn: bool = False
    by_default: tuple[int, ...] = ()

    @property
    def metric_name(self) -> str:
        """Names the metric in a record."""
        return f"val/{self.metric}"

    @property
    def is_boosted(self) -> bool:
        """Whether it is boosted trees, which are their own optimizer."""
        return self.optimizers == ("boosting",)

    def chosen(self, horizons: Sequence[int] | None) -> list[int]:
        """Lists its horizons out of those that are asked for, None for those that are run by default."""
        wanted = (self.by_default or self.horizons) if horizons is None else horizons
        return [each for each in self.horizons if each in wanted]


@dataclass(frozen=True)
class Suite:
    """Describes a suite.

    Attributes:
        name: of its module in `benchmarks`, and of its files.
        title: of its page.
        about: paragraphs of its page: what it is for.
        tasks: by name.
        usual: middle of the range of initial rates, by optimizer.
        learned: learned schedules.
        baselines: the others.
        points: evaluations of a run after the first, evenly spaced; the last one is at its end.
        rates: initial rates that a schedule is run from, where none are asked for.
        seeds: runs from each rate, where none are asked for.
        decades: width of the range of initial rates about the usual one.
    """

    name: str
    title: str
    about: str
    tasks: Mapping[str, Task]
    usual: Mapping[str, float]
    learned: tuple[str, ...] = tuple(LEARNED)
    baselines: tuple[str, ...] = GROUPS["baselines"]
    points: int = 12
    rates: int = 8
    seeds: int = 3
    decades: float = 4.0

    @property
    def schedules(self) -> tuple[str, ...]:
        """All schedules, as the page has them."""
        return (*self.learned, *self.baselines)

    def policy_of(self, task: str, schedule: str) -> str:
        """Names the policy that a learned schedule takes, one of `BOOSTING_POLICIES` for trees; "" for others."""
        if schedule not in LEARNED:
            return ""
        trees = dict(zip(LEARNED, BOOSTING_POLICIES, strict=True))
        return trees[schedule] if self.tasks[task].is_boosted else schedule
