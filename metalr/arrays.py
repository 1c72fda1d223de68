"""One implementation for two kinds of arrays: torch tensors and NumPy arrays, both float32.

The features, the law, the guards and the policy are a hundred operations on a few numbers. In the batched inner runs
and where the rates live on a device, these are torch's; where a rate is a Python float, the decision ends on the host
anyway, and NumPy takes a third of torch's time for an operation on one element. The functions that both libraries
have under one name are called through `namespace`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Any
"""A torch.Tensor or a numpy.ndarray; all arrays of one call are of one kind."""


def namespace(array: Array) -> Any:
    """The library that an array belongs to: `torch` or `numpy`."""
    return torch if isinstance(array, Tensor) else np


def stack(arrays: Sequence[Array]) -> Array:
    """Equal arrays, one after the other along a new first axis; np.stack takes three times as long on small ones."""
    return torch.stack(tuple(arrays)) if isinstance(arrays[0], Tensor) else np.array(arrays)


def columns(vectors: Sequence[Array]) -> Array:
    """C vectors (R,) -> (R, C)."""
    return torch.stack(tuple(vectors), dim=-1) if isinstance(vectors[0], Tensor) else np.array(vectors).T


def to_numpy(tensor: Tensor) -> Array:
    """A copy on the host, float32 or as it is; waits for the tensor's device."""
    return np.array(tensor.detach().cpu().numpy())
