"""HeldOutTask: the held-out check of meta-training, the policy against its reference schedule over a grid of rates."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.meta.distribution import mix_seed
from metalr.meta.family import TaskFamily
from metalr.meta.hyperparameters import PRIORS, Hyperparameters
from metalr.meta.rollout import Rollout, rollout
from metalr.meta.task import InnerTraining


class HeldOutScore(NamedTuple):
    """Holds the score of a policy: log(final validation loss / the reference schedule's best over all initial rates).

    Attributes:
        median: at the median initial rate, mean over instances.
        worst: at the worst initial rate, mean over instances.
    """

    median: Tensor
    worst: Tensor

    @property
    def total(self) -> Tensor:
        """0.7 median + 0.3 worst, by which `MetaLearner` chooses the best policy; lower is better."""
        return 0.7 * self.median + 0.3 * self.worst


@dataclass
class HeldOutTask:
    """Scores a policy on fixed instances of a family, from a grid of initial rates with usual hyperparameters.

    Example:
        >>> import torch
        >>> from metalr import LRPolicy
        >>> from metalr.meta import HeldOutTask
        >>> from metalr.meta.families import QuadraticTasks
        >>> task = HeldOutTask("quadratic", QuadraticTasks(), optimizer="sgd", total_steps=20, instances=2, rates=3)
        >>> score = task.score(LRPolicy.load("default"), anytime=False, device=torch.device("cpu"))
        >>> bool(score.worst >= score.median)
        True

    Attributes:
        name: in the logs, and a part of the seed.
        family: that the task is sampled from.
        optimizer: "sgd" (momentum 0.9), "adam" (betas 0.9, 0.999), or "boosting" for boosted trees.
        total_steps: horizon, steps.
        instances: number of instances.
        rates: number of initial rates, evenly spaced by their logarithm.
        decades: width of the grid about the usual rate.
        seed: of the instances.
        validation_interval: as of `metalr.meta.InnerTraining`.
        epochs_known: likewise; known by default, as in most real runs.
    """

    name: str
    family: TaskFamily
    optimizer: str = "adam"
    total_steps: int = 200
    instances: int = 3
    rates: int = 8
    decades: float = 4.5
    seed: int = 1
    validation_interval: int | None = None
    epochs_known: bool = True
    _best: dict[bool, Tensor] = field(default_factory=dict, init=False, repr=False)

    def score(self, policy: LRPolicy, anytime: bool, device: torch.device, compiled: bool = False) -> HeldOutScore:
        """Runs the policy and scores it; the reference schedule's runs are made once and kept.

        Args:
            policy: that sets the rates.
            anytime: whether the runs are without a horizon; the reference schedule is then a constant rate.
            device: of the runs.
            compiled: run inner steps through torch.compile.
        """
        if anytime not in self._best:
            reference = self.reference_runs(policy, anytime, device, compiled)
            self._best[anytime] = self._final(reference).amin(0)
        final = self._final(self.runs(policy, anytime, device, compiled=compiled))
        ratio = (final / self._best[anytime]).log()
        return HeldOutScore(ratio.quantile(0.5, dim=0).mean(), ratio.amax(0).mean())

    @property
    def grid(self) -> Tensor:
        """Initial rates, ascending, (rates,)."""
        decades = torch.linspace(-self.decades / 2, self.decades / 2, self.rates)
        return PRIORS[self.optimizer].usual_lr * (decades * math.log(10.0)).exp()

    def runs(
        self, policy: LRPolicy, anytime: bool, device: torch.device, record: bool = False, compiled: bool = False
    ) -> Rollout:
        """Trains every instance from every rate: rates * instances runs, the first rate's instances first."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.name))
        task = self.family.sample(self.instances, generator)
        task = task.select(torch.arange(self.instances).repeat(self.rates)).to(device)
        hyper = Hyperparameters.of(self.grid.repeat_interleave(self.instances)[:, None], 0.9, 0.999)
        inner = InnerTraining(self.optimizer, hyper, self.total_steps, anytime, batch_seed=self.seed)
        inner = replace(inner, validation_interval=self.validation_interval, epochs_known=self.epochs_known)
        return rollout(task, inner, policy.function(), record=record, compiled=compiled)

    def reference_runs(self, policy: LRPolicy, anytime: bool, device: torch.device, compiled: bool = False) -> Rollout:
        """Trains them by the reference schedule alone: an untrained policy of the same features outputs zero."""
        return self.runs(LRPolicy(policy.features, policy.hidden).to(device), anytime, device, compiled=compiled)

    def _final(self, runs: Rollout) -> Tensor:
        """Computes the final validation losses, (rates, instances), capped where a run diverged."""
        final = runs.initial * runs.curve[-1].exp()
        return final.view(self.rates, self.instances)
