"""The held-out check of meta-training: fixed tasks, a grid of initial rates, learned against cosine."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from metalr.meta.distribution import mix_seed
from metalr.meta.inner import Inner
from metalr.meta.optimizers import OPTIMIZERS, Hyper
from metalr.meta.rollout import rollout
from metalr.meta.task import TaskFamily
from metalr.policy import LRPolicy


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
        optimizer: "sgd" (momentum 0.9) or "adam" (0.9, 0.999).
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

    def score(self, policy: LRPolicy, known: bool, device: torch.device) -> HeldOutScore:
        """Runs the policy; the reference schedule's runs are made once."""
        if known not in self._best:
            zero = LRPolicy(policy.features, policy.hidden).to(device)
            self._best[known] = self._final(zero, known, device).amin(0)
        final = self._final(policy, known, device)
        ratio = (final / self._best[known]).log()
        return HeldOutScore(ratio.quantile(0.5, dim=0).mean(), ratio.amax(0).mean())

    def _final(self, policy: LRPolicy, known: bool, device: torch.device) -> Tensor:
        """Final validation losses, (rates, instances), capped where a run diverged."""
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.name))
        task = self.family.sample(self.instances, generator)
        task = task.select(torch.arange(self.instances).repeat(self.rates)).to(device)
        runs = self.rates * self.instances
        inner = Inner(self.optimizer, self._hyper(runs), self.total_steps, known, self.seed)
        layers = [(w.detach(), b.detach()) for w, b in policy.shared_layers()]
        result = rollout(task, inner, layers, policy.columns)
        final = result.initial * result.curve[-1].exp()
        return final.view(self.rates, self.instances)

    def _hyper(self, runs: int) -> Hyper:
        optimizer = OPTIMIZERS[self.optimizer]
        grid = torch.linspace(-self.decades / 2, self.decades / 2, self.rates) * math.log(10.0)
        lr = (optimizer.usual_lr * grid.exp()).repeat_interleave(runs // self.rates)[:, None]
        return Hyper.of(lr, 0.9, 0.999)
