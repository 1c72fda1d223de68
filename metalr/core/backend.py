"""One implementation for two kinds of runs: many at once in torch tensors, or one on the host in Python numbers.

The features, the law and the guards are a hundred operations on a few numbers. In the batched inner runs, and where
the rates live on a device, these are torch's, on float32 tensors with a trailing run dimension (R,). Where a rate is a
Python float, the decision ends on the host anyway, and there a number is a number: an operation on it takes a
hundredth of the time that torch takes for a tensor of one element. Without the run dimension, what is a stack of
numbers is a list then, and what goes through the policy's matrices is a NumPy vector, all in double precision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from metalr.core import host_math as scalars

Array: TypeAlias = Any
"""A torch.Tensor with a trailing run dimension, or a Python number, list or numpy.ndarray without; all of one call are
of one kind."""


def namespace(array: Array) -> ModuleType:
    """Where the functions of an array are: `torch`, `numpy` for a vector, `metalr.core.host_math` for a number."""
    return torch if isinstance(array, Tensor) else np if isinstance(array, np.ndarray) else scalars


def stack(arrays: Iterable[Array]) -> Array:
    """C of (R,) -> (C, R)."""
    rows = list(arrays)
    return torch.stack(rows) if isinstance(rows[0], Tensor) else rows


def columns(arrays: Sequence[Array]) -> Array:
    """C of (R,) -> (R, C)."""
    return torch.stack(tuple(arrays), dim=-1) if isinstance(arrays[0], Tensor) else np.array(arrays)


def add(a: Array, b: Array) -> Array:
    """The sum of two stacks, (C, R)."""
    return a + b if isinstance(a, Tensor) else [x + y for x, y in zip(a, b, strict=True)]


def approach(stacks: Array, target: Array, weights: Array) -> Array:
    """S stacks (S, C, R), each moved towards the target (C, R) by its weight, (S, R)."""
    if isinstance(stacks, Tensor):
        return stacks + weights[:, None] * (target - stacks)
    return [[x + w * (t - x) for x, t in zip(row, target)] for row, w in zip(stacks, weights)]  # noqa: B905 - hot


def total(stacks: Array) -> Array:
    """The sum of all elements of S stacks, (S, C, R) -> (R,)."""
    return stacks.sum((0, 1)) if isinstance(stacks, Tensor) else sum(map(sum, stacks))


def largest(rows: Array) -> Array:
    """(R, C) -> (R,)."""
    return rows.amax(-1) if isinstance(rows, Tensor) else rows.max().item()


def is_known(rows: Array) -> Array:
    """Where no column of bounded rows (R, C) is NaN, (R,)."""
    return torch.isfinite(rows).all(-1) if isinstance(rows, Tensor) else scalars.isfinite(rows.dot(rows))


def masked(condition: Array, rows: Array) -> Array:
    """Rows (R, C) where the condition (R,) holds, elsewhere zeros."""
    if isinstance(rows, Tensor):
        return torch.where(condition[:, None], rows, 0.0)
    return rows if condition else np.zeros_like(rows)


def to_host(tensor: Tensor) -> Array:
    """(R,), (C, R) or (S, C, R) of one run -> number, list or list of lists; waits for the tensor's device."""
    return tensor.detach()[..., 0].tolist()


def to_vector(tensor: Tensor) -> Array:
    """A NumPy array on the host, in double precision, or as it is; waits for the tensor's device."""
    array = tensor.detach().cpu().numpy()
    return array.astype(np.float64) if tensor.is_floating_point() else array.copy()


def to_tensor(array: Array) -> Tensor:
    """The reverse of `to_host`, to the last bit; a tensor as it is."""
    return array if isinstance(array, Tensor) else torch.as_tensor(np.array(array))[..., None]
