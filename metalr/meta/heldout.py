"""The held-out check of meta-training: fixed tasks, a grid of initial rates, learned against cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.meta.distribution import mix_seed
from metalr.meta.network_task import TaskFamily
from metalr.meta.optimizers import HYPER, Hyper
from metalr.meta.rollout import Rollout, rollout
from metalr.meta.task import InnerTraining


class HeldOutScore(NamedTuple):
    """log(final validation loss / the best that the reference schedule reaches over all initial rates).

    Attributes:
        median: at the median initial rate, mean over instances.
        worst: at the worst one.
    """

    median: Tensor
    worst: Tensor

    @property
    def total(self) -> Tensor:
        """What chooses a policy: 0.7 median + 0.3 worst."""
        return 0.7 * self.median + 0.3 * self.worst


@dataclass
class HeldOutTask:
    """Fixed instances of a family, trained from a grid of initial rates with usual hyperparameters.

    Attributes:
        name: in the logs.
        family: of tasks.
        optimizer: "sgd" (momentum 0.9), "adam" (0.9, 0.999), or "boosting" for boosted trees.
        total_steps: horizon, steps.
        instances: of the task.
        rates: points of the grid.
        decades: its width about the usual rate.
        seed: of the instances.
    """

    name: str
    family: TaskFamily
    optimizer: str = "adam"
    total_steps: int = 200
    instances: int = 3
    rates: int = 8
    decades: float = 4.5
    seed: int = 1
    _best: dict[bool, Tensor] = field(default_factory=dict, init=False, repr=False)

    def score(self, policy: LRPolicy, anytime: bool, device: torch.device) -> HeldOutScore:
        """Runs the policy; the reference schedule's runs are made once."""
        if anytime not in self._best:
            self._best[anytime] = self._final(self.reference_runs(policy, anytime, device)).amin(0)
        final = self._final(self.runs(policy, anytime, device))
        ratio = (final / self._best[anytime]).log()
        return HeldOutScore(ratio.quantile(0.5, dim=0).mean(), ratio.amax(0).mean())

    @property
    def grid(self) -> Tensor:
        """Initial rates, ascending, (rates,)."""
        decades = torch.linspace(-self.decades / 2, self.decades / 2, self.rates)
        return HYPER[self.optimizer].usual_lr * (decades * math.log(10.0)).exp()

    def runs(self, policy: LRPolicy, anytime: bool, device: torch.device, record: bool = False) -> Rollout:
        """Trains every instance from every rate: runs (rates * instances), the first rate's instances first."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.name))
        task = self.family.sample(self.instances, generator)
        task = task.select(torch.arange(self.instances).repeat(self.rates)).to(device)
        hyper = Hyper.of(self.grid.repeat_interleave(self.instances)[:, None], 0.9, 0.999)
        inner = InnerTraining(self.optimizer, hyper, self.total_steps, anytime, self.seed)
        function = policy.function()
        return rollout(task, inner, function, record=record)

    def reference_runs(self, policy: LRPolicy, anytime: bool, device: torch.device) -> Rollout:
        """The same with the reference schedule alone: a policy of that shape which outputs zero."""
        return self.runs(LRPolicy(policy.features, policy.hidden).to(device), anytime, device)

    def _final(self, runs: Rollout) -> Tensor:
        """Final validation losses, (rates, instances), capped where a run diverged."""
        final = runs.initial * runs.curve[-1].exp()
        return final.view(self.rates, self.instances)
