"""The arithmetic of a decision: one protocol, with two backends.

The features, the update rule and the guards are a hundred operations on a few numbers. In the batched inner runs of
meta-training, and where the rates live on a device, these are torch's (`metalr.core.torch_backend`), on float32
tensors with a trailing run dimension (R,). Where a rate is a Python float, the decision ends on the host anyway, and
there a number is a number (`metalr.core.host_backend`): an operation on it takes a hundredth of the time that torch
takes for a tensor of one element.

The four kinds of values are opaque here, so that a type checker holds the kernel to them: a `Number` of each run, a
`Mask`, a `Stack` of C numbers, and a `Vector` of C numbers that goes through the policy's matrices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from metalr.core import host_backend, torch_backend

Own = TypeVar("Own")
State = TypeVar("State", bound="tuple[Any, ...]")
N = TypeVar("N")
M = TypeVar("M")
S = TypeVar("S")
SS = TypeVar("SS")
V = TypeVar("V")


class Number(Protocol):
    """Holds a number of each run: a tensor (R,), or a Python float."""

    def __add__(self: Own, other: Own | float, /) -> Own: ...
    def __radd__(self: Own, other: float, /) -> Own: ...
    def __sub__(self: Own, other: Own | float, /) -> Own: ...
    def __rsub__(self: Own, other: float, /) -> Own: ...
    def __mul__(self: Own, other: Own | float, /) -> Own: ...
    def __rmul__(self: Own, other: float, /) -> Own: ...
    def __truediv__(self: Own, other: Own | float, /) -> Own: ...
    def __rtruediv__(self: Own, other: float, /) -> Own: ...
    def __neg__(self: Own) -> Own: ...
    def __float__(self) -> float: ...
    def __lt__(self: Own, other: Own | float, /) -> Mask: ...
    def __le__(self: Own, other: Own | float, /) -> Mask: ...
    def __gt__(self: Own, other: Own | float, /) -> Mask: ...
    def __ge__(self: Own, other: Own | float, /) -> Mask: ...


class Mask(Protocol):
    """Holds a condition of each run: a bool tensor (R,), or a Python bool."""

    def __and__(self: Own, other: Own, /) -> Own: ...
    def __or__(self: Own, other: Own, /) -> Own: ...
    def __bool__(self) -> bool: ...


class Stack(Protocol):
    """Holds C numbers of each run: a tensor (C, R), or a list; stacks of stacks are (S, C, R), or a list of lists."""

    def __iter__(self) -> Iterator[Number]: ...
    def __len__(self) -> int: ...


class Vector(Protocol):
    """Holds C numbers of each run for matrix products: a tensor (R, C), or a NumPy array (C,) in double precision."""

    def __len__(self) -> int: ...


class Operations(Protocol[N, M, S, SS, V]):
    """Computes with the values of a decision. Like torch's, its functions never raise: undefined results are NaN.

    Each backend has its own numbers N, masks M, stacks S, stacks of stacks SS and vectors V.
    """

    def where(self, condition: M, if_true: N, if_false: N | float, /) -> N:
        """Chooses one of two numbers."""

    def choose(self, condition: M, if_true: State, if_false: State, /) -> State:
        """Chooses one of two states, which are NamedTuples of numbers and stacks."""

    def equal(self, a: N, b: N | float, /) -> M:
        """Tests whether two numbers are the same."""

    def logical_not(self, condition: M, /) -> M:
        """Negates a condition."""

    def isfinite(self, x: N, /) -> M:
        """Tests whether a number is finite in float32."""

    def minimum(self, a: N, b: N, /) -> N:
        """Returns the smaller number."""

    def maximum(self, a: N, b: N, /) -> N:
        """Returns the larger number."""

    def clip(self, x: N, low: float, high: float = ..., /) -> N:
        """Returns the nearest number in [low, high]."""

    def square(self, x: N, /) -> N:
        """Computes x^2."""

    def sqrt(self, x: N, /) -> N:
        """Computes the square root."""

    def log(self, x: N, /) -> N:
        """Computes the natural logarithm."""

    def exp(self, x: N, /) -> N:
        """Computes e^x."""

    def cos(self, x: N, /) -> N:
        """Computes the cosine."""

    def tanh(self, x: N, /) -> N:
        """Computes the hyperbolic tangent."""

    def arcsinh(self, x: N, /) -> N:
        """Computes the inverse hyperbolic sine: x near zero, a signed logarithm far from it."""

    def stack(self, numbers: Iterable[N | M], /) -> S:
        """Stacks C numbers, (R,) each, as (C, R)."""

    def choose_stack(self, condition: M, if_true: S, if_false: S, /) -> S:
        """Chooses one of two stacks (C, R)."""

    def add(self, a: S, b: S, /) -> S:
        """Adds two stacks, (C, R)."""

    def approach(self, stacks: SS, target: S, weights: S, /) -> SS:
        """Moves each of the S stacks (S, C, R) towards the target (C, R) by its weight, (S, R)."""

    def split(self, stacks: SS, /) -> Iterable[S]:
        """Splits (S, C, R) into its S stacks."""

    def total(self, stacks: SS, /) -> N:
        """Sums all elements of S stacks, (S, C, R) -> (R,)."""

    def vector(self, numbers: Sequence[N], low: float, high: float, /) -> V:
        """Joins C numbers, (R,) each, as (R, C), each clipped to [low, high]."""

    def select(self, vector: V, columns: V, /) -> V:
        """Selects some of a vector's numbers, by their positions."""

    def has_no_nan(self, vector: V, /) -> M:
        """Tests whether none of a bounded vector's numbers is NaN, (R,)."""

    def masked(self, condition: M, vector: V, /) -> V:
        """Returns the vector where the condition (R,) holds, elsewhere zeros."""

    def affine(self, weight: V, bias: V, vector: V, /) -> V:
        """Applies one layer: of one policy, (O, I) and (O,), or of a population, (R, O, I) and (R, O)."""

    def relu(self, vector: V, /) -> V:
        """Computes max(0, x)."""

    def only(self, vector: V, /) -> N:
        """Returns the only number of a vector of length one."""

    def largest_excess(self, vector: V, low: V, high: V, margin: V, /) -> N:
        """Computes how far the farthest number lies outside [low, high], in margins."""

    def over(self, x: N, y: V, /) -> N:
        """Divides by a constant ()."""

    def distance(self, vector: V, centre: V, whitener: V, /) -> N:
        """Computes |whitener (x - centre)|."""


Backend = Operations[Number, Mask, Stack, Stack, Vector]
"""What the kernel sees of either backend."""

_torch: Operations[Tensor, Tensor, Tensor, Tensor, Tensor] = torch_backend
_host: Operations[float, bool, Sequence[float], Sequence[Sequence[float]], host_backend.Floats] = host_backend

TORCH = cast(Backend, _torch)
"""On tensors, wherever they are."""

HOST = cast(Backend, _host)
"""On Python numbers, of one run."""


def to_host(tensor: Tensor) -> float | list[float] | list[list[float]]:
    """Brings (R,), (C, R) or (S, C, R) of one run to the host as a number, a list or a list of lists.

    It waits for the tensor's device.
    """
    value: float | list[float] | list[list[float]] = tensor.detach()[..., 0].tolist()
    return value


def to_host_vector(tensor: Tensor) -> Vector:
    """Brings what has no run dimension to the host as a NumPy array, in double precision where it is floating."""
    array = tensor.detach().cpu().numpy()
    return cast(Vector, array.astype(np.float64) if tensor.is_floating_point() else array.copy())


def to_tensor(value: object) -> Tensor:
    """Reverses `to_host`, to the last bit; a tensor stays as it is.

    Args:
        value: a `Number`, `Mask`, `Stack`, or a tuple of them.
    """
    return value if isinstance(value, Tensor) else torch.as_tensor(np.array(value))[..., None]
