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
from typing import Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from metalr.core import host_backend, torch_backend

Own = TypeVar("Own")
State = TypeVar("State")


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


class Backend(Protocol):
    """Computes with the values of a decision. Like torch's, its functions never raise: undefined results are NaN."""

    def where(self, condition: Mask, if_true: Number, if_false: Number | float, /) -> Number:
        """Chooses one of two numbers."""

    def choose(self, condition: Mask, if_true: State, if_false: State, /) -> State:
        """Chooses one of two states, which are NamedTuples of numbers and stacks."""

    def equal(self, a: Number, b: Number | float, /) -> Mask:
        """Tests whether two numbers are the same."""

    def logical_not(self, condition: Mask, /) -> Mask:
        """Negates a condition."""

    def isfinite(self, x: Number, /) -> Mask:
        """Tests whether a number is finite in float32."""

    def minimum(self, a: Number, b: Number, /) -> Number:
        """Returns the smaller number."""

    def maximum(self, a: Number, b: Number, /) -> Number:
        """Returns the larger number."""

    def clip(self, x: Number, low: float, high: float = ..., /) -> Number:
        """Returns the nearest number in [low, high]."""

    def square(self, x: Number, /) -> Number:
        """Computes x^2."""

    def sqrt(self, x: Number, /) -> Number:
        """Computes the square root."""

    def log(self, x: Number, /) -> Number:
        """Computes the natural logarithm."""

    def exp(self, x: Number, /) -> Number:
        """Computes e^x."""

    def cos(self, x: Number, /) -> Number:
        """Computes the cosine."""

    def tanh(self, x: Number, /) -> Number:
        """Computes the hyperbolic tangent."""

    def arcsinh(self, x: Number, /) -> Number:
        """Computes the inverse hyperbolic sine: x near zero, a signed logarithm far from it."""

    def stack(self, numbers: Iterable[Number | Mask], /) -> Stack:
        """Stacks C numbers, (R,) each, as (C, R)."""

    def choose_stack(self, condition: Mask, if_true: Stack, if_false: Stack, /) -> Stack:
        """Chooses one of two stacks (C, R)."""

    def add(self, a: Stack, b: Stack, /) -> Stack:
        """Adds two stacks, (C, R)."""

    def approach(self, stacks: Stack, target: Stack, weights: Stack, /) -> Stack:
        """Moves each of the S stacks (S, C, R) towards the target (C, R) by its weight, (S, R)."""

    def split(self, stacks: Stack, /) -> Iterable[Stack]:
        """Splits (S, C, R) into its S stacks."""

    def total(self, stacks: Stack, /) -> Number:
        """Sums all elements of S stacks, (S, C, R) -> (R,)."""

    def vector(self, numbers: Sequence[Number], low: float, high: float, /) -> Vector:
        """Joins C numbers, (R,) each, as (R, C), each clipped to [low, high]."""

    def select(self, vector: Vector, columns: Vector, /) -> Vector:
        """Selects some of a vector's numbers, by their positions."""

    def has_no_nan(self, vector: Vector, /) -> Mask:
        """Tests whether none of a bounded vector's numbers is NaN, (R,)."""

    def masked(self, condition: Mask, vector: Vector, /) -> Vector:
        """Returns the vector where the condition (R,) holds, elsewhere zeros."""

    def affine(self, weight: Vector, bias: Vector, vector: Vector, /) -> Vector:
        """Applies one layer: of one policy, (O, I) and (O,), or of a population, (R, O, I) and (R, O)."""

    def relu(self, vector: Vector, /) -> Vector:
        """Computes max(0, x)."""

    def only(self, vector: Vector, /) -> Number:
        """Returns the only number of a vector of length one."""

    def largest_excess(self, vector: Vector, low: Vector, high: Vector, margin: Vector, /) -> Number:
        """Computes how far the farthest number lies outside [low, high], in margins."""

    def over(self, x: Number, y: Vector, /) -> Number:
        """Divides by a constant ()."""

    def distance(self, vector: Vector, centre: Vector, whitener: Vector, /) -> Number:
        """Computes |whitener (x - centre)|."""


TORCH = cast(Backend, torch_backend)
"""On tensors, wherever they are."""

HOST = cast(Backend, host_backend)
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
