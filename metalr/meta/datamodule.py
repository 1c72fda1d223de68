"""MetaTasksDataModule: the tasks of meta-training and of its held-out check, as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Iterator

import lightning as L
from torch.utils.data import DataLoader, IterableDataset

from metalr.meta.distribution import Component, TaskDistribution
from metalr.meta.heldout import HeldOutTask


class _Endless(IterableDataset[TaskDistribution]):
    """Yields the distribution for every meta-step, whose number chooses the task batch."""

    def __init__(self, distribution: TaskDistribution) -> None:
        self.distribution = distribution

    def __iter__(self) -> Iterator[TaskDistribution]:
        while True:
            yield self.distribution


class _Each(IterableDataset[HeldOutTask]):
    """Gives every held-out task to every rank: an iterable is not split over ranks, and all must agree on the score."""

    def __init__(self, tasks: list[HeldOutTask]) -> None:
        self.tasks = tasks

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[HeldOutTask]:
        return iter(self.tasks)


class MetaTasksDataModule(L.LightningDataModule):
    """Provides the tasks of a `metalr.meta.MetaLearner`.

    Training is endless: bound it by the Trainer's `max_steps`, and validate by `val_check_interval`.

    Example:
        >>> from metalr.meta import Component, HeldOutTask, MetaTasksDataModule
        >>> from metalr.meta.families import AutoencoderTasks, MLPTasks
        >>> data = MetaTasksDataModule(
        ...     components={"mlp": Component(MLPTasks(), horizons=(50, 200))},
        ...     heldout=[HeldOutTask("autoencoder", AutoencoderTasks(), optimizer="adam", total_steps=100)],
        ... )

    Args:
        components: families of the mixture, by name.
        heldout: tasks of the held-out check.
        decades: as of `TaskDistribution`, like the arguments after it.
        optimizers: weight of each inner optimizer by name.
        reparameterised: share of the task batches whose parameters are in other units.
        curriculum: number of task batches over which the longest horizons grow.
        seed: of the task batches.
        validated: share of the task batches in which the policy is shown a validation loss.
        stratified: choose components by a sequence that has each as often as its weight asks among few task batches.
        epochs_known: share of the task batches in which the policy is told how many steps make an epoch.
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
        validated: float = 0.0,
        stratified: bool = False,
        epochs_known: float = 0.75,
    ) -> None:
        super().__init__()
        self.distribution = TaskDistribution(
            components,
            decades=decades,
            optimizers=optimizers,
            reparameterised=reparameterised,
            curriculum=curriculum,
            seed=seed,
            validated=validated,
            stratified=stratified,
            epochs_known=epochs_known,
        )
        self.heldout = list(heldout or [])

    def train_dataloader(self) -> DataLoader[TaskDistribution]:
        """Returns a loader of one item a meta-step, the same on every rank."""
        return DataLoader(_Endless(self.distribution), batch_size=None)

    def val_dataloader(self) -> DataLoader[HeldOutTask]:
        """Returns a loader of one item for each held-out task."""
        return DataLoader(_Each(self.heldout), batch_size=None)
