"""A copy on the host of what an optimizer trains and remembers, to go back to when a run has collapsed.

It holds the optimizer's parameters and state, and those buffers of a module (the statistics of a batch norm) that go
with these parameters. Of sharded parameters (DTensor) each rank copies its own part, so that nothing is gathered. All
is put back in place: whatever holds these tensors sees their earlier values.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core.policy import BOOSTING_POLICIES
from metalr.core.sample import trained
from metalr.core.steps import with_inner


class WeightSnapshot:
    """Copies parameters, optimizer state and buffers to the host, and puts them back.

    Args:
        optimizer: whose trained parameters and state they are; optimizers that it steps inside are copied with it.
        module: that holds the parameters, for its buffers; None to leave buffers as they are.

    Raises:
        ValueError: for an optimizer that grows trees, which would not go back.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> snapshot = WeightSnapshot(optimizer, layer)
        >>> snapshot.take()
        >>> with torch.no_grad():
        ...     weight = layer.weight.zero_()
        >>> snapshot.put_back()
        >>> bool(layer.weight.any())
        True
    """

    def __init__(self, optimizer: Optimizer, module: nn.Module | None = None) -> None:
        if getattr(optimizer, "lr_policies", None) == BOOSTING_POLICIES:
            raise ValueError("restore with boosted trees: those that were grown do not go back; leave restore out")
        self._optimizer, self._module = optimizer, module
        self._weights: dict[Tensor, Tensor] = {}
        self._buffers: dict[str, Tensor] = {}
        self._states: list[dict[Tensor, object]] = []

    @property
    def covers_all(self) -> bool:
        """Whether every parameter that is trained now is in the copy; parameters that were thawed since are not."""
        return all(param in self._weights for param in self._parameters())

    @torch.no_grad()
    def take(self) -> None:
        """Copies what there is now, into the memory of the last copy where that fits."""
        self._weights = {param: _stored_tensor(param, self._weights.get(param)) for param in self._parameters()}
        self._buffers = {name: _stored_tensor(part, self._buffers.get(name)) for name, part in self._live_buffers()}
        optimizers = list(with_inner(self._optimizer))
        earlier = self._states or [{} for _ in optimizers]
        self._states = [
            {param: _stored(state, before.get(param)) for param, state in each.state.items()}
            for each, before in zip(optimizers, earlier, strict=True)
        ]

    @torch.no_grad()
    def put_back(self) -> None:
        """Puts the copy back, and clears the gradients, which belong to the weights that are given up.

        State that the optimizer made since the copy was taken is forgotten.
        """
        for param, stored in self._weights.items():
            _put_back(param, stored, param)
        for name, buffer in self._live_buffers():
            if name in self._buffers:
                _put_back(buffer, self._buffers[name], buffer)
        for each, states in zip(with_inner(self._optimizer), self._states, strict=True):
            for param in [param for param in each.state if param not in states]:
                del each.state[param]
            for param, state in states.items():
                each.state[param] = _put_back(each.state.get(param), state, param)
        for param in self._parameters():
            if param.grad is not None:
                param.grad.zero_()

    def _parameters(self) -> Iterator[Tensor]:
        yield from (param for group in self._optimizer.param_groups for param in trained(group))

    def _live_buffers(self) -> Iterator[tuple[str, Tensor]]:
        if self._module is not None:
            yield from buffers_with(self._module, set(self._parameters()))


def buffers_with(module: nn.Module, params: set[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yields, by name, the buffers of a module that go with some parameters.

    A buffer goes with the parameters of the innermost part of the module that holds it and any parameter at all: those
    of a batch norm with its own, or, where it has none, with those of the block that it is in.
    """
    for owner, each in module.named_modules():
        own = dict(each.named_buffers(owner, recurse=False))
        if own and any(param in params for param in _nearest_parameters(module, owner)):
            yield from own.items()


def _nearest_parameters(module: nn.Module, owner: str) -> list[Tensor]:
    held: list[Tensor] = list(module.get_submodule(owner).parameters())
    return held if held or not owner else _nearest_parameters(module, owner.rpartition(".")[0])


def _local(tensor: Tensor) -> Tensor:
    """Returns this rank's part of a tensor, in the same memory."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()


def _stored_tensor(value: Tensor, earlier: object) -> Tensor:
    """Copies a tensor to the host; into an earlier copy where that fits."""
    part = _local(value)
    if isinstance(earlier, Tensor) and (earlier.shape, earlier.dtype) == (part.shape, part.dtype):
        return earlier.copy_(part)
    return part.to("cpu", copy=True)


def _stored(value: object, earlier: object = None) -> object:
    """Copies a part of an optimizer's state to the host; its tensors into an earlier copy where that fits."""
    if isinstance(value, Tensor):
        return _stored_tensor(value, earlier)
    if isinstance(value, Mapping):
        before = earlier if isinstance(earlier, Mapping) else {}
        return {key: _stored(each, before.get(key)) for key, each in value.items()}
    if isinstance(value, list):
        return [_stored(each) for each in value]
    return copy.deepcopy(value)


def _put_back(live: object, stored: object, param: Tensor) -> object:
    """Returns what was stored, on the parameter's device: in the live tensors, where they are still there."""
    if isinstance(stored, Tensor):
        if not isinstance(live, Tensor) or _local(live).shape != stored.shape:
            live = _like(param, stored)
        _local(live).copy_(stored)
        return live
    if isinstance(stored, dict):
        before = live if isinstance(live, dict) else {}
        return {key: _put_back(before.get(key), each, param) for key, each in stored.items()}
    if isinstance(stored, list):
        parts = live if isinstance(live, list) and len(live) == len(stored) else [None] * len(stored)
        return [_put_back(one, each, param) for one, each in zip(parts, stored, strict=True)]
    return copy.deepcopy(stored)


def _like(param: Tensor, stored: Tensor) -> Tensor:
    """Makes a tensor for a part of the state that is gone: sharded as its parameter is, where it has its shape."""
    if _local(param).shape == stored.shape:
        return torch.empty_like(param, dtype=stored.dtype, requires_grad=False)
    return torch.empty_like(stored, device=param.device)
