"""Which inner runs a meta-step makes: a weighted mixture of families, horizons and optimizers."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from metalr.meta.family import TaskFamily
from metalr.meta.hyperparameters import PRIORS
from metalr.meta.optimizers import OPTIMIZERS
from metalr.meta.task import InnerTraining, Task

_REPARAMETERISATION = 1.5
"""Nats either way by which a tensor's units may change."""


@dataclass
class Component:
    """One family in the mixture.

    Attributes:
        family: the task family.
        weight: how often it is drawn, relative to the others; > 0.
        horizons: shortest and longest horizon in steps, drawn log-uniformly.
    """

    family: TaskFamily
    weight: float = 1.0
    horizons: tuple[int, int] = (50, 500)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        low, high = self.horizons
        if self.weight <= 0:
            raise ValueError(f"weight={self.weight} of {type(self.family).__name__}: must be positive")
        if not 1 <= low <= high:
            raise ValueError(f"horizons={self.horizons}: give (shortest, longest) in steps, 1 or more")


@dataclass(frozen=True)
class TaskBatch:
    """One draw: P instances of a task and how they are trained."""

    name: str
    task: Task
    inner: InnerTraining


def mix_seed(*parts: int | str) -> int:
    """A seed out of several numbers and words, the same on every machine, in [0, 2^63)."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)


class TaskDistribution:
    """A mixture of task families; its draws depend on a seed and an index alone.

    Args:
        components: families by name.
        decades: width of the log-uniform distribution of initial rates about the usual one.
        optimizers: weight of each optimizer, by its name in `metalr.meta.optimizers.OPTIMIZERS`; all alike by
            default.
        reparameterised: share of the draws whose parameters are held in other units, see `Task.reparameterised`.
        curriculum: draws over which the longest horizons grow, geometrically, from the shortest to their full length:
            what is learned on short runs is learned for less, and holds for longer ones.
        seed: of all draws.
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        decades: float = 5.0,
        optimizers: Mapping[str, float] | None = None,
        reparameterised: float = 0.25,
        curriculum: int = 0,
        seed: int = 0,
    ) -> None:
        if curriculum < 0:
            raise ValueError(f"curriculum={curriculum}: give a number of draws, 0 for none")
        if not components:
            raise ValueError("components={}: give one family or more")
        self.optimizers = dict(optimizers or dict.fromkeys(OPTIMIZERS, 1.0))
        unknown = set(self.optimizers) - set(OPTIMIZERS)
        if unknown or min(self.optimizers.values()) <= 0:
            raise ValueError(f"optimizers={self.optimizers}: give weights above 0 by name, out of {list(OPTIMIZERS)}")
        if not 0.0 <= reparameterised <= 1.0:
            raise ValueError(f"reparameterised={reparameterised}: give a share in [0, 1]")
        self.reparameterised = reparameterised
        self.curriculum = curriculum
        self.components = dict(components)
        self.decades = decades
        self.seed = seed

    def sample(self, index: int, instances: int, anytime: bool = False) -> TaskBatch:
        """The index-th draw, with that many instances; `anytime`: without the horizon among the features."""
        chance = random.Random(mix_seed(self.seed, index, "component"))
        names = list(self.components)
        name = chance.choices(names, [self.components[n].weight for n in names])[0]
        total_steps = self._horizon(self.components[name], index, chance)
        family = self.components[name].family
        optimizer = chance.choices(list(self.optimizers), list(self.optimizers.values()))[0]
        optimizer = family.optimizer or optimizer
        generator = torch.Generator().manual_seed(mix_seed(self.seed, index, "task"))
        task = family.sample(instances, generator)
        if chance.random() < self.reparameterised:
            task = task.reparameterised(_REPARAMETERISATION, generator)
        hyper = PRIORS[optimizer].sample(instances, generator, self.decades)
        batches = mix_seed(self.seed, index, "batches")
        return TaskBatch(name, task, InnerTraining(optimizer, hyper, total_steps, anytime, batches))

    def _horizon(self, component: Component, index: int, chance: random.Random) -> int:
        """Log-uniform, within what the curriculum allows at this draw; one with a negative number comes after it."""
        low, high = map(math.log, component.horizons)
        grown = min(1.0, (index + 1) / self.curriculum) if self.curriculum and index >= 0 else 1.0
        return round(math.exp(chance.uniform(low, low + grown * (high - low))))
