"""A fixed sample of an optimizer's parameters: norms and products whose cost does not grow with the model.

Below the limit the sample is everything. Above it, each tensor gives evenly spaced slices in proportion to its size
(and small tensors all they have), and what is summed over them is scaled up tensor by tensor. Of sharded parameters
(DTensor: FSDP2, tensor parallelism) each rank samples its own part, and the ranks' sums are added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

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
        scale: square root of how many elements each sampled one stands for, (n,); None where that is one. It is a
            share of one where several ranks hold the same element, so that they count it once together.
        count: elements that the sample stands for; summed over the ranks, the group's.
        sharded: whether a rank holds a part of the parameters.
    """

    params: list[Tensor]
    cuts: list[list[slice] | None]
    scale: Tensor | None
    count: float
    sharded: bool = False

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
            if self.sharded:
                tensor, param = None if tensor is None else _local(tensor, param), _local(param, param)
            if tensor is not None and tensor.is_sparse:
                taken = _sparse_pieces(tensor.detach(), cuts)
            else:
                flat = _flat(torch.zeros_like(param) if tensor is None else tensor.detach(), param)
                taken = [flat] if cuts is None else [flat[cut] for cut in cuts]
            pieces += taken if param.device == self.device else [piece.to(self.device) for piece in taken]
        vector = torch.cat(pieces)
        if vector.dtype in (torch.float16, torch.bfloat16):
            vector = vector.float()
        return vector if self.scale is None else vector * self.scale


def _flat(tensor: Tensor, param: Tensor) -> Tensor:
    """All elements in the order of the parameter's memory, without a copy where the strides allow it."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    if tensor.stride() == param.stride() and param.is_contiguous(memory_format=torch.channels_last):
        return tensor.as_strided((tensor.numel(),), (1,))
    return tensor.reshape(-1)


def _sparse_pieces(tensor: Tensor, cuts: list[slice] | None) -> list[Tensor]:
    """The cuts of a sparse tensor, filled in from its values: no dense copy of a large embedding is made."""
    tensor = tensor.coalesce()
    if cuts is None:
        return [tensor.to_dense().flatten()]
    values = tensor.values()
    rows = values[0].numel() if len(values) else 1  # elements of a hybrid tensor's row, one after another
    sizes = torch.tensor(tensor.shape[: tensor.sparse_dim()], device=tensor.device)
    strides = torch.flip(torch.cumprod(torch.flip(sizes, (0,)), 0), (0,)) // sizes
    starts = (tensor.indices() * strides[:, None]).sum(0) * rows
    positions = (starts[:, None] + torch.arange(rows, device=tensor.device)).flatten()
    pieces = []
    for cut in cuts:
        inside = (positions >= cut.start) & (positions < cut.stop)
        piece = values.new_zeros(cut.stop - cut.start)
        piece[positions[inside] - cut.start] = values.flatten()[inside]
        pieces.append(piece)
    return pieces


def _local(tensor: Tensor, param: Tensor) -> Tensor:
    """This rank's part of a tensor that goes with a parameter, laid out as the parameter is."""
    if not hasattr(tensor, "to_local"):
        return tensor
    if tensor.placements != param.placements:  # type: ignore[attr-defined]
        tensor = tensor.redistribute(placements=param.placements)  # type: ignore[attr-defined]
    local: Tensor = tensor.to_local()
    return local


def mesh_of(optimizer: Optimizer) -> DeviceMesh | None:
    """The devices that an optimizer's parameters are sharded over: the largest mesh; None where there is none.

    Raises:
        ValueError: where some parameters' mesh lies outside of it, or parameters were flattened by FSDP1.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if any(getattr(p, "_fsdp_flattened", False) or type(p).__name__ == "FlatParameter" for p in params):
        raise ValueError(
            "optimizer holds parameters of FullyShardedDataParallel (FSDP1), of which a rank cannot tell its part: "
            "use torch.distributed.fsdp.fully_shard (FSDP2)"
        )
    meshes = {p.device_mesh for p in params if hasattr(p, "device_mesh")}
    if not meshes:
        return None
    largest: DeviceMesh = max(meshes, key=lambda mesh: mesh.size())
    ranks = set(largest.mesh.flatten().tolist())
    if not all(ranks.issuperset(mesh.mesh.flatten().tolist()) for mesh in meshes):
        raise ValueError(
            "optimizer holds parameters on device meshes of which none contains the others: give each mesh an "
            "optimizer and a MetaLR of its own"
        )
    return largest


class ParameterSample:
    """The sample of all parameter groups of an optimizer.

    Args:
        optimizer: whose parameters with `requires_grad` are sampled.
        limit: elements in all.

    Raises:
        ValueError: for parameters that FSDP1 flattened, or on device meshes apart.
    """

    def __init__(self, optimizer: Optimizer, limit: int = LIMIT) -> None:
        trained = [[p for p in group["params"] if p.requires_grad] for group in optimizer.param_groups]
        self._mesh = mesh_of(optimizer)
        share = min(1.0, limit / max(1, sum(p.numel() for params in trained for p in params)))
        self.groups = [_sample_group(params, share, self._mesh) for params in trained]
        self._ids = [[id(p) for p in params] for params in trained]

    def total(self, sums: Tensor) -> Tensor:
        """Sums over this rank's part of the sample -> sums over all of it, the same on every rank."""
        if self._mesh is None:
            return sums
        from torch.distributed.tensor import DTensor, Partial

        sent = sums.to(self._mesh.device_type)  # parameters may be offloaded to the host, which NCCL cannot reach
        parts = DTensor.from_local(sent, self._mesh, [Partial()] * self._mesh.ndim, run_check=False)
        whole: Tensor = parts.full_tensor().to(sums.device)
        return whole

    def fits(self, groups: Sequence[dict[str, Any]]) -> bool:
        """Whether these are still the trained parameters of the optimizer's groups."""
        trained = [[id(p) for p in group["params"] if p.requires_grad] for group in groups]
        return trained == self._ids


def _sample_group(params: list[Tensor], share: float, mesh: DeviceMesh | None) -> GroupSample:
    sizes = [_local(param, param).numel() for param in params]
    copies = [1 if mesh is None else mesh.size() // _shards(param) for param in params]
    cuts = [_cuts(size, share) for size in sizes]
    count = sum(size / copy for size, copy in zip(sizes, copies, strict=True))
    if all(cut is None for cut in cuts) and all(copy == 1 for copy in copies):
        return GroupSample(params, cuts, None, count, mesh is not None)
    scales = []
    for param, size, copy, cut in zip(params, sizes, copies, cuts, strict=True):
        taken = size if cut is None else sum(c.stop - c.start for c in cut)
        scales.append(torch.full((taken,), math.sqrt(size / max(1, taken) / copy), device=param.device))
    return GroupSample(params, cuts, torch.cat(scales), count, mesh is not None)


def _shards(param: Tensor) -> int:
    """Number of parts that a parameter is split into."""
    if not hasattr(param, "placements"):
        return 1
    pairs = zip(param.device_mesh.shape, param.placements, strict=True)  # type: ignore[attr-defined]
    return math.prod(size for size, placement in pairs if not placement.is_replicate())


def _cuts(count: int, share: float) -> list[slice] | None:
    """Evenly spaced slices of `share` of a tensor, or None for the whole of it."""
    wanted = math.ceil(share * count)
    if count <= _SMALL or wanted >= count:
        return None
    length = max(1, wanted // SLICES)
    number = max(1, wanted // length)
    stride = count / number
    return [slice(int(i * stride), int(i * stride) + length) for i in range(number)]
