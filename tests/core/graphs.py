"""A step whose operations are recorded and repeated, as a CUDA graph does it, on the CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metalr.core.decider import Decider

WAITS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)


class Graph(TorchDispatchMode):
    """Records what runs in it; `replay` runs it again, on the same tensors and into the same ones.

    Nothing of Python is repeated: a number that the host computed stays what it was.
    """

    def __init__(self, monkeypatch) -> None:
        super().__init__()
        self._calls: list[tuple[Any, tuple, dict, list[Any]]] = []
        self._monkeypatch = monkeypatch

    def __enter__(self) -> Graph:
        self._monkeypatch.setattr(Decider, "is_in_graph", lambda decider: decider.device is not None)
        return super().__enter__()

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        self._monkeypatch.undo()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in WAITS, f"{func} waits for the device"
        out = func(*args, **(kwargs or {}))
        self._calls.append((func, args, kwargs or {}, tree_leaves(out)))
        return out

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, held in self._calls:
            for old, new in zip(held, tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)
