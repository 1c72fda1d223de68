"""The backend of one run on the host: Python numbers, lists and NumPy vectors; see `metalr.core.backend`.

An operation on a Python number takes a tenth of NumPy's time, and a hundredth of torch's. Like torch's these functions
never raise: what is not defined is NaN, what is too large is infinite, and NaN spreads.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
Floats = NDArray[np.float64]

LARGEST = 2.0**128 * (1.0 - 2.0**-24)
"""The largest float32: what lies beyond it is as good as infinite, here as in torch."""

_LARGEST_EXPONENT = math.log(sys.float_info.max)

tanh, arcsinh = math.tanh, math.asinh


def where(condition: bool, if_true: float, if_false: float) -> float:
    """One of two numbers."""
    return if_true if condition else if_false


def choose(condition: bool, if_true: Value, if_false: Value) -> Value:
    """One of two states."""
    return if_true if condition else if_false


choose_stack = choose


def equal(a: float, b: float) -> bool:
    """Whether two numbers are the same."""
    return a == b


def logical_not(condition: bool) -> bool:
    """The opposite; for a Python bool, `~` is something else."""
    return not condition


def isfinite(x: float) -> bool:
    """Whether a number is finite in float32."""
    return -LARGEST <= x <= LARGEST


def minimum(a: float, b: float) -> float:
    """The smaller number."""
    return a if a < b or a != a else b


def maximum(a: float, b: float) -> float:
    """The larger number."""
    return a if a > b or a != a else b


def clip(x: float, low: float, high: float = math.inf) -> float:
    """The nearest number in [low, high]."""
    return low if x < low else high if x > high else x


def square(x: float) -> float:
    """x^2."""
    return x * x


def sqrt(x: float) -> float:
    """The square root."""
    return math.sqrt(x) if x >= 0.0 else math.nan


def log(x: float) -> float:
    """The natural logarithm."""
    return math.log(x) if x > 0.0 else -math.inf if x == 0.0 else math.nan


def exp(x: float) -> float:
    """e^x."""
    return math.exp(x) if x <= _LARGEST_EXPONENT else x * math.inf


def stack(numbers: Iterable[float]) -> list[float]:
    """A list of C numbers."""
    return list(numbers)


def add(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """The sum of two stacks."""
    return [x + y for x, y in zip(a, b, strict=True)]


def approach(stacks: Sequence[Sequence[float]], target: Sequence[float], weights: Sequence[float]) -> list[list[float]]:
    """S stacks, each moved towards the target by its weight."""
    return [[x + w * (t - x) for x, t in zip(row, target)] for row, w in zip(stacks, weights)]  # noqa: B905 - hot


def split(stacks: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """S stacks, one by one."""
    return stacks


def total(stacks: Sequence[Sequence[float]]) -> float:
    """The sum of all elements."""
    return sum(map(sum, stacks))


def vector(numbers: Sequence[float], low: float, high: float) -> Floats:
    """C numbers as an array, clipped."""
    return np.array(numbers).clip(low, high)


def select(vector: Floats, columns: NDArray[np.int64]) -> Floats:
    """Some of the numbers."""
    return vector[columns]


def has_no_nan(vector: Floats) -> bool:
    """Whether none of some bounded numbers is NaN."""
    return isfinite(vector.dot(vector))


def masked(condition: bool, vector: Floats) -> Floats:
    """The vector where the condition holds, else zeros."""
    return vector if condition else np.zeros_like(vector)


def affine(weight: Floats, bias: Floats, vector: Floats) -> Floats:
    """One layer."""
    result: Floats = weight @ vector + bias
    return result


def relu(vector: Floats) -> Floats:
    """max(0, x)."""
    return vector.clip(0.0)


def only(vector: Floats) -> float:
    """The one number."""
    number: float = vector.item()
    return number


def largest_excess(vector: Floats, low: Floats, high: Floats, margin: Floats) -> float:
    """How far the farthest number lies outside [low, high], in margins."""
    excess: Floats = np.maximum(low - vector, vector - high) / margin
    number: float = excess.max().item()
    return number


def over(x: float, y: Floats) -> float:
    """X divided by a constant."""
    return x / y.item()


def distance(vector: Floats, centre: Floats, whitener: Floats) -> float:
    """|whitener (x - centre)|."""
    whitened: Floats = (vector - centre) @ whitener.T
    return sqrt(np.square(whitened).sum().item())
