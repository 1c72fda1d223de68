"""The task distribution that meta-training draws from, and the tasks that it is checked on."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
from torch.utils.data import DataLoader, IterableDataset

from metalr.meta.distribution import Component, TaskDistribution
from metalr.meta.heldout import HeldOutTask


class _Endless(IterableDataset[TaskDistribution]):
    """Yields the distribution for every meta-step; the step's number chooses the draw."""

    def __init__(self, distribution: TaskDistribution) -> None:
        self.distribution = distribution

    def __iter__(self) -> Iterator[TaskDistribution]:
        while True:
            yield self.distribution


class _Each(IterableDataset[HeldOutTask]):
    """Every held-out task on every rank: an iterable is not split over ranks, and all must agree on the score."""

    def __init__(self, tasks: list[HeldOutTask]) -> None:
        self.tasks = tasks

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[HeldOutTask]:
        return iter(self.tasks)


class MetaTasksDataModule(L.LightningDataModule):
    """Tasks for `metalr.meta.MetaLearner`.

    Training is endless: bound it by the Trainer's `max_steps`, and validate by `val_check_interval`.

    Args:
        components: families in the mixture, by name.
        heldout: tasks of the held-out check.
        decades: width of the log-uniform distribution of initial rates about the usual ones.
        optimizers: weight of each inner optimizer by name; all alike by default.
        reparameterised: share of the draws whose parameters are held in other units.
        curriculum: draws over which the longest horizons grow from the shortest to their full length; 0 for none.
        seed: of the draws.
    """

    def __init__(
        self,
        components: dict[str, Component],
        heldout: list[HeldOutTask] | None = None,
        decades: float = 5.0,
        optimizers: dict[str, float] | None = None,
        reparameterised: float = 0.25,
        curriculum: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.distribution = TaskDistribution(components, decades, optimizers, reparameterised, curriculum, seed)
        self.heldout = list(heldout or [])

    def train_dataloader(self) -> DataLoader[TaskDistribution]:
        """One item a meta-step, the same on every rank."""
        return DataLoader(_Endless(self.distribution), batch_size=None)

    def val_dataloader(self) -> DataLoader[HeldOutTask]:
        """One item a held-out task."""
        return DataLoader(_Each(self.heldout), batch_size=None)
