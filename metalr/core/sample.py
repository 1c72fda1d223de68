"""A fixed sample of an optimizer's parameters: norms and products whose cost does not grow with the model.

Below the limit the sample is everything. Above it, each tensor gives evenly spaced slices in proportion to its size
(and no fewer than four thousand elements), and what is summed over them is scaled up tensor by tensor. The slices are
many and short, so that they meet every part of a tensor whose rows differ, as those of an embedding do: a batch
reaches few of them, and frequent tokens often lie side by side. Of sharded parameters (DTensor: FSDP2, tensor
parallelism) each rank samples its own part, and the ranks' sums are added up. Complex tensors count as pairs of reals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

LIMIT = 2**18
"""Elements sampled in all, beside the minimum of small tensors; `benchmarks/overhead.py` shows the errors."""

ParamGroup = dict[str, Any]
"""A parameter group of an optimizer: its "params", its "lr", and whatever else the optimizer's class gives it."""

LENGTH = 32
"""Elements of a slice: two lines of a cache."""

LEAST = 4096
"""Elements that every tensor gives, or all that it has."""


class Cut(NamedTuple):
    """Describes evenly spaced slices of a tensor in the order of its memory.

    Attributes:
        number: of slices.
        length: of each, elements.
        stride: from the start of one to the start of the next, elements.
    """

    number: int
    length: int
    stride: int

    @classmethod
    def of(cls, count: int, share: float) -> Cut | None:
        """Chooses slices that hold `share` of `count` elements, or None for all of them."""
        wanted = max(math.ceil(share * count), LEAST)
        if wanted >= count:
            return None
        length = min(LENGTH, wanted)
        number = wanted // length
        stride = count // number
        stride -= 1 - stride % 2  # odd, lest all slices lie in the same columns
        return None if stride < length else cls(number, length, stride)

    def view(self, tensor: Tensor) -> Tensor:
        """Views the slices of a tensor that fills its memory, (number, length), without a copy."""
        return tensor.as_strided((self.number, self.length), (self.stride, 1))

    def of_sparse(self, tensor: Tensor) -> Tensor:
        """Gathers the slices of a sparse tensor from its values: no dense copy of a large embedding is made."""
        tensor = tensor.coalesce()
        values = tensor.values()
        width = values[0].numel() if len(values) else 1  # elements of a hybrid tensor's row, one after another
        sizes = torch.tensor(tensor.shape[: tensor.sparse_dim()], device=tensor.device)
        strides = torch.flip(torch.cumprod(torch.flip(sizes, (0,)), 0), (0,)) // sizes
        starts = (tensor.indices() * strides[:, None]).sum(0) * width
        positions = (starts[:, None] + torch.arange(width, device=tensor.device)).flatten()
        which, where = positions // self.stride, positions % self.stride
        inside = (where < self.length) & (which < self.number)
        slices = values.new_zeros(self.number, self.length)
        slices[which[inside], where[inside]] = values.flatten()[inside]
        return slices


class GroupSample:
    """Samples the parameters of one group.

    Args:
        params: the group's parameters that are trained.
        share: of the elements, that are sampled.
        mesh: of devices that parameters are sharded over; None where they are whole.

    Attributes:
        params: as given.
        cuts: slices of each parameter; None for all of it.
        scale: square root of how many elements each sampled one stands for, (n,); None where that is one. It is a
            share of one where several ranks hold the same element, so that they count it once together.
        count: elements that the sample stands for, on all ranks together.
    """

    def __init__(self, params: list[Tensor], share: float, mesh: DeviceMesh | None) -> None:
        parts = [as_real(_local(param, param)) for param in params]
        copies = [1 if mesh is None else mesh.size() // _shards(param) for param in params]
        self.params = params
        self.cuts = [Cut.of(part.numel(), share) if _is_dense(part) else None for part in parts]
        self.count = sum(_real_numel(param) for param in params)
        self.scale: Tensor | None = None
        self._sharded = mesh is not None
        self._shapes = [
            part.shape if cut is None else torch.Size(cut[:2]) for part, cut in zip(parts, self.cuts, strict=True)
        ]
        self._dtype = reduce(torch.promote_types, {torch.float32, *(param.dtype.to_real() for param in params)})
        self._rows = torch.empty(0, 0)
        self._places: list[list[Tensor]] = []
        weights = [
            (1.0 if cut is None else part.numel() / (cut.number * cut.length)) / copy
            for part, cut, copy in zip(parts, self.cuts, copies, strict=True)
        ]
        if any(weight != 1.0 for weight in weights):
            sizes = torch.tensor([shape.numel() for shape in self._shapes])
            self.scale = torch.tensor(weights).sqrt().repeat_interleave(sizes).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the sample is gathered: the first parameter's device."""
        return self.params[0].device

    def gather(self, *sources: Sequence[Tensor | None] | Tensor) -> Tensor:
        """Gathers the sampled elements of some tensors of each parameter, such as their gradients.

        Args:
            sources: each with one tensor of a parameter's shape for each parameter, of which None stands for zeros;
                or a row that was gathered before, (n,).

        Returns:
            A row for each source, in float32 or more, not scaled: (S, n). It is the same memory at each call, but for
            a compiled one.
        """
        if torch.compiler.is_compiling():
            return torch.stack([self._joined(tensors) for tensors in sources])
        self._make_room(len(sources))
        places, taken = [], []
        for index, (row, tensors) in enumerate(zip(self._places, sources, strict=False)):
            if isinstance(tensors, Tensor):
                self._rows[index].copy_(tensors)
                continue
            for place, tensor, param, cut in zip(row, tensors, self.params, self.cuts, strict=True):
                if tensor is None:
                    place.zero_()
                    continue
                places.append(place)
                taken.append(self._sampled(tensor, param, cut))
        torch._foreach_copy_(places, taken)  # in one call, whatever their precision, layout and device
        return self._rows[: len(sources)]

    def _sampled(self, tensor: Tensor, param: Tensor, cut: Cut | None) -> Tensor:
        """Views or gathers the sampled elements of a tensor that goes with a parameter."""
        if self._sharded:
            tensor, param = _local(tensor, param), _local(param, param)
        if param.is_complex():
            tensor, param = as_real(tensor), as_real(param)
        if tensor.is_sparse:
            return tensor.to_dense() if cut is None else cut.of_sparse(tensor)
        return tensor if cut is None else cut.view(_laid_out(tensor, param))

    def _joined(self, tensors: Sequence[Tensor | None] | Tensor) -> Tensor:
        """Gathers the same as a new row, for a compiler, to which views of one memory are opaque."""
        if isinstance(tensors, Tensor):
            return tensors
        parts = zip(tensors, self.params, self.cuts, self._shapes, strict=True)
        return torch.cat(
            [
                torch.zeros(shape.numel(), dtype=self._dtype, device=self.device)
                if tensor is None
                else self._sampled(tensor, param, cut).flatten().to(self._dtype)
                for tensor, param, cut, shape in parts
            ]
        )

    def local_parameters(self) -> list[Tensor]:
        """Lists this rank's parts of the parameters, dense ones with complex numbers as pairs of reals."""
        parts = [as_real(_local(param, param)).detach() for param in self.params]
        return [part for part in parts if not part.is_sparse]

    def scaled(self, rows: Tensor) -> Tensor:
        """Scales rows (..., n): each element times the root of how many it stands for."""
        return rows if self.scale is None else rows * self.scale

    def _make_room(self, rows: int) -> None:
        if len(self._places) >= rows and self._rows.device == self.device:
            return
        sizes = [shape.numel() for shape in self._shapes]
        self._rows = torch.empty(rows, sum(sizes), dtype=self._dtype, device=self.device)
        self._places = [
            [piece.view(shape) for piece, shape in zip(row.split(sizes), self._shapes, strict=True)]
            for row in self._rows
        ]


def as_real(tensor: Tensor) -> Tensor:
    """Views a complex tensor as pairs of reals, (..., 2); returns a real one as it is."""
    if not tensor.is_complex():
        return tensor
    if not tensor.is_sparse:
        return torch.view_as_real(tensor.detach().resolve_conj())
    tensor = tensor.coalesce()
    values = torch.view_as_real(tensor.values().resolve_conj())
    return torch.sparse_coo_tensor(tensor.indices(), values, (*tensor.shape, 2), is_coalesced=True)


def _real_numel(param: Tensor) -> int:
    return param.numel() * (2 if param.is_complex() else 1)


def trained(group: ParamGroup) -> list[Tensor]:
    """Lists the parameters of a group that have gradients: the others are never looked at."""
    return [param for param in group["params"] if param.requires_grad]


def _is_dense(tensor: Tensor) -> bool:
    """Tests whether a tensor fills its memory without a gap."""
    formats = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)
    return any(tensor.is_contiguous(memory_format=layout) for layout in formats)


def _laid_out(tensor: Tensor, param: Tensor) -> Tensor:
    """Brings a tensor into the memory layout of its parameter, by a copy where it has another."""
    tensor = tensor.detach()
    return tensor if tensor.stride() == param.stride() else torch.empty_like(param).copy_(tensor)


def _local(tensor: Tensor, param: Tensor) -> Tensor:
    """Returns this rank's part of a tensor that goes with a parameter, laid out as the parameter is."""
    if not hasattr(tensor, "to_local"):
        return tensor
    if tensor.placements != param.placements:  # type: ignore[attr-defined]
        tensor = tensor.redistribute(placements=param.placements)  # type: ignore[attr-defined]
    local: Tensor = tensor.to_local()
    return local


def _shards(param: Tensor) -> int:
    """Counts the parts that a parameter is split into."""
    if not hasattr(param, "placements"):
        return 1
    pairs = zip(param.device_mesh.shape, param.placements, strict=True)  # type: ignore[attr-defined]
    return math.prod(size for size, placement in pairs if not placement.is_replicate())


def mesh_of(optimizer: Optimizer) -> DeviceMesh | None:
    """Returns the devices that the parameters are sharded over: the largest mesh; None where there is none.

    Raises:
        ValueError: where some parameters' mesh lies outside of it, or parameters were flattened by FSDP1.
    """
    params = [p for group in optimizer.param_groups for p in trained(group)]
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
    """Samples the parameters of all groups of an optimizer.

    Args:
        optimizer: whose parameters with `requires_grad` are sampled.
        limit: elements in all; of each tensor `LEAST` in any case.

    Raises:
        ValueError: for parameters that FSDP1 flattened, or on device meshes apart.
    """

    def __init__(self, optimizer: Optimizer, limit: int = LIMIT) -> None:
        groups = [trained(group) for group in optimizer.param_groups]
        self._mesh = mesh_of(optimizer)
        share = min(1.0, limit / max(1, sum(_real_numel(p) for params in groups for p in params)))
        self.groups = [GroupSample(params, share, self._mesh) for params in groups]
        self._known = _known(optimizer.param_groups)

    @property
    def is_sharded(self) -> bool:
        """Whether each rank samples a part of its own, which a state that one rank writes cannot hold."""
        return self._mesh is not None

    def total(self, sums: Tensor) -> Tensor:
        """Adds up sums over this rank's part of the sample to sums over all of it, the same on every rank."""
        if self._mesh is None:
            return sums
        from torch.distributed.tensor import DTensor, Partial

        sent = sums.to(self._mesh.device_type)  # parameters may be offloaded to the host, which NCCL cannot reach
        parts = DTensor.from_local(sent, self._mesh, [Partial()] * self._mesh.ndim, run_check=False)
        whole: Tensor = parts.full_tensor().to(sums.device)
        return whole

    def fits(self, groups: Sequence[ParamGroup]) -> bool:
        """Tests whether these are still the trained parameters of the optimizer's groups, of the same sizes."""
        return _known(groups) == self._known


def _known(groups: Sequence[ParamGroup]) -> list[list[tuple[int, int]]]:
    return [[(id(p), p.numel()) for p in trained(group)] for group in groups]
