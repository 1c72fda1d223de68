"""A fixed sample of an optimizer's parameters: norms and products whose cost does not grow with the model.

Below the limit the sample is everything. Above it, each tensor gives evenly spaced slices in proportion to its size
(and small tensors all they have), and what is summed over them is scaled up tensor by tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

LIMIT = 2**20
"""Elements sampled in all."""

SLICES = 16
"""Slices of a tensor that is not taken whole."""

_SMALL = 4096
"""Elements up to which a tensor is always taken whole."""


@dataclass(frozen=True)
class GroupSample:
    """The sample of one parameter group.

    Attributes:
        params: the group's parameters that are trained.
        cuts: slices of each flattened parameter; None for all of it.
        scale: square root of how many elements each sampled one stands for, (n,); None where that is one.
        count: elements that the sample stands for.
    """

    params: list[Tensor]
    cuts: list[list[slice] | None]
    scale: Tensor | None
    count: int

    @property
    def device(self) -> torch.device:
        """Where the sample is gathered: the first parameter's device."""
        return self.params[0].device

    def gather(self, pick: Callable[[Tensor], Tensor | None]) -> Tensor | None:
        """The sampled elements of what `pick` gives for each parameter, scaled, in one vector (n,).

        Args:
            pick: from a parameter to a tensor of its shape, or to None, which stands for zeros.

        Returns:
            The vector, in float32 or more; None where `pick` gave None for every parameter.
        """
        picked = [pick(param) for param in self.params]
        if all(tensor is None for tensor in picked):
            return None
        pieces: list[Tensor] = []
        for param, tensor, cuts in zip(self.params, picked, self.cuts, strict=True):
            flat = _flat(torch.zeros_like(param) if tensor is None else tensor.detach(), param)
            flat = flat if flat.device == self.device else flat.to(self.device)
            pieces += [flat] if cuts is None else [flat[cut] for cut in cuts]
        vector = torch.cat(pieces)
        if vector.dtype in (torch.float16, torch.bfloat16):
            vector = vector.float()
        return vector if self.scale is None else vector * self.scale


def _flat(tensor: Tensor, param: Tensor) -> Tensor:
    """All elements in the order of the parameter's memory, without a copy where the strides allow it."""
    if tensor.is_sparse:
        raise ValueError(
            "a gradient is sparse, and its norm over all rows is not known: build the embedding with sparse=False"
        )
    if tensor.is_contiguous():
        return tensor.view(-1)
    if tensor.stride() == param.stride() and param.is_contiguous(memory_format=torch.channels_last):
        return tensor.as_strided((tensor.numel(),), (1,))
    return tensor.reshape(-1)


class ParameterSample:
    """The sample of all parameter groups of an optimizer.

    Args:
        optimizer: whose parameters with `requires_grad` are sampled.
        limit: elements in all.
    """

    def __init__(self, optimizer: Optimizer, limit: int = LIMIT) -> None:
        trained = [[p for p in group["params"] if p.requires_grad] for group in optimizer.param_groups]
        if any(hasattr(p, "placements") for params in trained for p in params):
            raise ValueError(
                "optimizer holds sharded parameters (DTensor), of which a rank sees a part: use MetaLR with one "
                "device or with DDP"
            )
        share = min(1.0, limit / max(1, sum(p.numel() for params in trained for p in params)))
        self.groups = [_sample_group(params, share) for params in trained]
        self._ids = [[id(p) for p in params] for params in trained]

    def fits(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether these are still the trained parameters of the optimizer's groups."""
        trained = [[id(p) for p in group["params"] if p.requires_grad] for group in groups]
        return trained == self._ids


def _sample_group(params: list[Tensor], share: float) -> GroupSample:
    cuts = [_cuts(param.numel(), share) for param in params]
    count = sum(param.numel() for param in params)
    if all(cut is None for cut in cuts):
        return GroupSample(params, cuts, None, count)
    scales = []
    for param, cut in zip(params, cuts, strict=True):
        taken = param.numel() if cut is None else sum(c.stop - c.start for c in cut)
        scales.append(torch.full((taken,), math.sqrt(param.numel() / max(1, taken)), device=param.device))
    return GroupSample(params, cuts, torch.cat(scales), count)


def _cuts(count: int, share: float) -> list[slice] | None:
    """Evenly spaced slices of `share` of a tensor, or None for the whole of it."""
    wanted = math.ceil(share * count)
    if count <= _SMALL or wanted >= count:
        return None
    length = max(1, wanted // SLICES)
    number = max(1, wanted // length)
    stride = count / number
    return [slice(int(i * stride), int(i * stride) + length) for i in range(number)]
