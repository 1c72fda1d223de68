"""Loaders as every data module makes them."""

from __future__ import annotations

import itertools
import os
from typing import Any

import lightning as L
import torch
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSampler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset


class Columns(Dataset):
    """Tensors of equal length, fetched a batch at a time: twenty times a `TensorDataset`'s rows a second.

    Args:
        tensors: (N, ...) each.
    """

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        return tuple(tensor[indices] for tensor in self.tensors)


def as_fetched(batch: Any) -> Any:
    """Collates for a data set whose `__getitems__` makes whole batches."""
    return batch


def make_loader(
    rows: Dataset,
    batch_size: int,
    trainer: L.Trainer | None = None,
    training: bool = False,
    **options: Any,
) -> DataLoader:
    """Makes a loader of all rows, or on several ranks of this rank's part.

    No row is there twice, so that metrics are exact; Lightning's own sampler would repeat some to make the ranks' parts
    alike. All ranks have as many batches, which DDP needs: so where the parts would not give that, batches are a row or
    two smaller or larger than asked for.

    Args:
        rows: the split; one that is iterated shards itself.
        batch_size: rows of a batch.
        trainer: whose ranks share the rows; None for one process.
        training: shuffled, and without the last incomplete batch of each rank, unless there is no other; in order and
            whole otherwise.
        options: others of `DataLoader`, by keyword: Lightning makes the loader again for prediction.

    Raises:
        ValueError: for fewer rows than ranks.
    """
    if isinstance(rows, IterableDataset):
        return DataLoader(rows, batch_size=batch_size, drop_last=training, **options)
    count, ranks = len(rows), trainer.world_size if trainer else 1  # type: ignore[arg-type]
    drop_last = training and count // ranks >= batch_size
    if trainer is None or ranks == 1:
        return DataLoader(rows, batch_size=batch_size, shuffle=training, drop_last=drop_last, **options)
    if count < ranks:
        raise ValueError(f"{count} rows on {ranks} ranks: give fewer ranks, or more rows")
    part: dict[str, Any] = {"num_replicas": ranks, "rank": trainer.global_rank, "shuffle": training}
    part["seed"] = int(os.environ.get("PL_GLOBAL_SEED", 0))  # as Lightning's own
    if drop_last:
        sampler = DistributedSampler(rows, drop_last=True, **part)
    else:
        sampler = UnrepeatedDistributedSampler(rows, **part)
        batch_size = even_batch_size(count, ranks, batch_size)
    return DataLoader(rows, batch_size=batch_size, sampler=sampler, drop_last=drop_last, **options)


def even_batch_size(count: int, ranks: int, batch_size: int) -> int:
    """Finds the batch size nearest to the given one that gives each rank as many batches, the smaller of two."""
    fewest, most = count // ranks, -(-count // ranks)
    sizes = (size for off in itertools.count() for size in (batch_size - off, batch_size + off) if size > 0)
    return next(size for size in sizes if -(-fewest // size) == -(-most // size))


def loader_options(num_workers: int | None) -> dict[str, Any]:
    """Workers, pinning and persistence for a `DataLoader`.

    Args:
        num_workers: None for one a core that this process may use beside its own, 8 at most.

    Raises:
        ValueError: for a negative number.
    """
    if num_workers is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_workers = min(8, cores - 1)
    if num_workers < 0:
        raise ValueError(f"num_workers={num_workers}: give 0 or more, or None for a default by the cores here")
    return {
        "num_workers": num_workers,
        "pin_memory": torch.cuda.is_available(),
        "persistent_workers": num_workers > 0,
    }


def check_batch_size(batch_size: int) -> int:
    """Returns the batch size, where it is at least 1.

    Raises:
        ValueError: otherwise.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    return batch_size
