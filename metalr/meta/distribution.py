"""TaskDistribution: the mixture of families, horizons and optimizers that the inner runs of meta-training are from."""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch

from metalr.meta.family import TaskFamily
from metalr.meta.hyperparameters import PRIORS
from metalr.meta.optimizers import OPTIMIZERS
from metalr.meta.task import InnerTraining, Task

_REPARAMETERISATION = 1.5
"""Largest |log factor| by which the units of a tensor change."""

_VALIDATION_SHARES = (0.01, 0.5)
"""Shortest and longest interval of the shown validation losses, as shares of the horizon."""


@dataclass
class Component:
    """Adds a family to a mixture.

    Attributes:
        family: the task family.
        weight: how often it is chosen, relative to the others; > 0.
        horizons: shortest and longest horizon in steps; horizons are log-uniform in between.
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
    """Holds P instances of a sampled task, and how they are trained.

    Attributes:
        name: of the component that the task is from.
        task: P instances.
        inner: their training.
    """

    name: str
    task: Task
    inner: InnerTraining


_GOLDEN = (5**0.5 - 1.0) / 2.0
"""Step of the sequence i * step mod 1 whose first points, however many, are spread most evenly over [0, 1)."""


def mix_seed(*parts: int | str) -> int:
    """Makes one seed, in [0, 2^63), out of several numbers and words; the same on every machine."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)


class TaskDistribution:
    """Samples task batches from a mixture of families; each depends on the seed and its index alone.

    Example:
        >>> from metalr.meta import Component, TaskDistribution
        >>> from metalr.meta.families import MLPTasks, QuadraticTasks
        >>> distribution = TaskDistribution(
        ...     {
        ...         "mlp": Component(MLPTasks(), weight=3.0, horizons=(50, 200)),
        ...         "quadratic": Component(QuadraticTasks(), horizons=(50, 500)),
        ...     },
        ...     optimizers={"sgd": 1.0, "adam": 1.0},
        ... )
        >>> batch = distribution.sample(index=0, instances=4)
        >>> len(batch.task), batch.inner.total_steps == distribution.horizon(0)
        (4, True)

    Args:
        components: families by name.
        decades: width of the log-uniform distribution of initial rates about the optimizer's usual one.
        optimizers: weight of each optimizer, by its name in `metalr.meta.optimizers.OPTIMIZERS`; equal by default. A
            family that names an optimizer of its own is trained by that.
        reparameterised: share of the task batches whose parameters are in other units, see
            `NetworkTask.reparameterised`; in [0, 1].
        curriculum: number of task batches over which the longest horizon grows, geometrically, from the shortest to
            its full length, since short runs cost less; 0 for none.
        seed: of all task batches.
        validated: share of the task batches in which the policy is shown a validation loss, at an interval that is
            log-uniform from a hundredth of the horizon (a step at least) to a half; in [0, 1]. A policy learns to use
            it by `metalr.core.validation_loss.VALIDATION_FEATURES`, and to go without by the other task batches.
        stratified: choose components by a golden-ratio sequence in place of random numbers, so that among few
            consecutive task batches, those of a meta-step say, each is about as often as its weight asks. The gradient
            then varies less from meta-step to meta-step, as families' estimates point in different directions.
        epochs_known: share of the task batches in which the policy is told how many steps make a pass over the training
            samples, as most real runs can tell; in [0, 1].

    Raises:
        ValueError: for no components, an unknown optimizer, a weight that is not positive, or a setting out of range.
    """

    def __init__(
        self,
        components: Mapping[str, Component],
        decades: float = 5.0,
        optimizers: Mapping[str, float] | None = None,
        reparameterised: float = 0.25,
        curriculum: int = 0,
        seed: int = 0,
        validated: float = 0.0,
        stratified: bool = False,
        epochs_known: float = 0.75,
    ) -> None:
        if curriculum < 0:
            raise ValueError(f"curriculum={curriculum}: give a number of task batches, 0 for none")
        if not components:
            raise ValueError("components={}: give one family or more")
        self.optimizers = dict(optimizers or dict.fromkeys(OPTIMIZERS, 1.0))
        unknown = set(self.optimizers) - set(OPTIMIZERS)
        if unknown or min(self.optimizers.values()) <= 0:
            raise ValueError(f"optimizers={self.optimizers}: give weights above 0 by name, out of {list(OPTIMIZERS)}")
        if not 0.0 <= reparameterised <= 1.0:
            raise ValueError(f"reparameterised={reparameterised}: give a share in [0, 1]")
        if not 0.0 <= validated <= 1.0:
            raise ValueError(f"validated={validated}: give a share in [0, 1]")
        if not 0.0 <= epochs_known <= 1.0:
            raise ValueError(f"epochs_known={epochs_known}: give a share in [0, 1]")
        self.epochs_known = epochs_known
        self.reparameterised = reparameterised
        self.validated = validated
        self.stratified = stratified
        self.curriculum = curriculum
        self.components = dict(components)
        self.decades = decades
        self.seed = seed

    def sample(self, index: int, instances: int, anytime: bool = False) -> TaskBatch:
        """Samples the task batch with this index.

        Args:
            index: of the task batch. Those of meta-training count from 0; a negative index gives one that
                meta-training does not use, at its full horizon.
            instances: P.
            anytime: whether the inner runs are without a horizon among their features.
        """
        chance, name, total_steps = self._choose(index)
        family = self.components[name].family
        optimizer = chance.choices(list(self.optimizers), list(self.optimizers.values()))[0]
        optimizer = family.optimizer or optimizer
        generator = torch.Generator().manual_seed(mix_seed(self.seed, index, "task"))
        task = family.sample(instances, generator)
        if chance.random() < self.reparameterised:
            task = task.reparameterised(_REPARAMETERISATION, generator)
        hyper = PRIORS[optimizer].sample(instances, generator, self.decades)
        batch_seed = mix_seed(self.seed, index, "batches")
        shown, known = self._validation_interval(index, total_steps), self._knows_epochs(index)
        return TaskBatch(name, task, InnerTraining(optimizer, hyper, total_steps, anytime, batch_seed, shown, known))

    def _validation_interval(self, index: int, total_steps: int) -> int | None:
        """Samples the interval by random numbers of its own, so that all else of a task batch is the same without."""
        chance = random.Random(mix_seed(self.seed, index, "validation"))
        if chance.random() >= self.validated:
            return None
        shortest, longest = (math.log(max(1.0, share * total_steps)) for share in _VALIDATION_SHARES)
        return round(math.exp(chance.uniform(shortest, longest)))

    def _knows_epochs(self, index: int) -> bool:
        """Samples whether the policy is told the length of an epoch, likewise."""
        return random.Random(mix_seed(self.seed, index, "epochs")).random() < self.epochs_known

    def horizon(self, index: int) -> int:
        """Returns the horizon of the task batch with this index, steps, without sampling its task."""
        return self._choose(index)[2]

    def component(self, index: int) -> str:
        """Returns the name of the component of the task batch with this index, without sampling its task."""
        return self._choose(index)[1]

    def _choose(self, index: int) -> tuple[random.Random, str, int]:
        """Samples a task batch's component and horizon; returns its random numbers, the name and the horizon."""
        chance = random.Random(mix_seed(self.seed, index, "component"))
        names, ends = list(self.components), list(accumulate(each.weight for each in self.components.values()))
        if self.stratified:
            offset = random.Random(mix_seed(self.seed, "strata")).random()
            name = names[min(bisect(ends, (offset + index * _GOLDEN) % 1.0 * ends[-1]), len(names) - 1)]
        else:
            name = chance.choices(names, cum_weights=ends)[0]
        return chance, name, self._horizon(self.components[name], index, chance)

    def _horizon(self, component: Component, index: int, chance: random.Random) -> int:
        """Samples a horizon, log-uniform up to the bound of the curriculum, which a negative index is past."""
        low, high = map(math.log, component.horizons)
        grown = min(1.0, (index + 1) / self.curriculum) if self.curriculum and index >= 0 else 1.0
        return round(math.exp(chance.uniform(low, low + grown * (high - low))))
