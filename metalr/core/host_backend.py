"""The backend of one run on the host: Python numbers, lists and NumPy vectors; see `metalr.core.backend`.

An operation on a Python number takes a tenth of NumPy's time, and a hundredth of torch's. Like torch's these functions
never raise: what is not defined is NaN, what is too large is infinite, and NaN spreads.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
Floats = NDArray[np.float64]

LARGEST = 2.0**128 * (1.0 - 2.0**-24)
"""The largest float32: what lies beyond it is as good as infinite, here as in torch."""

_LARGEST_EXPONENT = math.log(sys.float_info.max)

cos, tanh, arcsinh = math.cos, math.tanh, math.asinh


def where(condition: bool, if_true: float, if_false: float) -> float:
    """Chooses one of two numbers."""
    return if_true if condition else if_false


def choose(condition: bool, if_true: Value, if_false: Value) -> Value:
    """Chooses one of two states."""
    return if_true if condition else if_false


choose_stack = choose


def equal(a: float, b: float) -> bool:
    """Tests whether two numbers are the same."""
    return a == b


def logical_not(condition: bool) -> bool:
    """Negates a condition; for a Python bool, `~` is something else."""
    return not condition


def isfinite(x: float) -> bool:
    """Tests whether a number is finite in float32."""
    return -LARGEST <= x <= LARGEST


def minimum(a: float, b: float) -> float:
    """Returns the smaller number."""
    return a if a < b or a != a else b


def maximum(a: float, b: float) -> float:
    """Returns the larger number."""
    return a if a > b or a != a else b


def clip(x: float, low: float, high: float = math.inf) -> float:
    """Returns the nearest number in [low, high]."""
    return low if x < low else high if x > high else x


def square(x: float) -> float:
    """Computes x^2."""
    return x * x


def sqrt(x: float) -> float:
    """Computes the square root."""
    return math.sqrt(x) if x >= 0.0 else math.nan


def log(x: float) -> float:
    """Computes the natural logarithm."""
    return math.log(x) if x > 0.0 else -math.inf if x == 0.0 else math.nan


def exp(x: float) -> float:
    """Computes e^x."""
    return math.exp(x) if x <= _LARGEST_EXPONENT else x * math.inf


def stack(numbers: Iterable[float]) -> list[float]:
    """Lists C numbers."""
    return list(numbers)


def add(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Adds two stacks."""
    return [x + y for x, y in zip(a, b, strict=True)]


def approach(stacks: Sequence[Sequence[float]], target: Sequence[float], weights: Sequence[float]) -> list[list[float]]:
    """Moves each of the S stacks towards the target by its weight."""
    return [[x + w * (t - x) for x, t in zip(row, target)] for row, w in zip(stacks, weights)]  # noqa: B905 - hot


def split(stacks: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """Returns the S stacks."""
    return stacks


def total(stacks: Sequence[Sequence[float]]) -> float:
    """Sums all elements."""
    return sum(map(sum, stacks))


def vector(numbers: Sequence[float], low: float, high: float) -> Floats:
    """Makes an array of C numbers, clipped."""
    return np.array(numbers).clip(low, high)


def select(vector: Floats, columns: NDArray[Any]) -> Floats:
    """Selects some of the numbers."""
    selected: Floats = vector[columns]
    return selected


def has_no_nan(vector: Floats) -> bool:
    """Tests whether none of some bounded numbers is NaN."""
    return isfinite(vector.dot(vector))


def masked(condition: bool, vector: Floats) -> Floats:
    """Returns the vector where the condition holds, else zeros."""
    return vector if condition else np.zeros_like(vector)


def affine(weight: Floats, bias: Floats, vector: Floats) -> Floats:
    """Applies one layer."""
    result: Floats = weight @ vector + bias
    return result


def relu(vector: Floats) -> Floats:
    """Computes max(0, x)."""
    return vector.clip(0.0)


def only(vector: Floats) -> float:
    """Returns the only number."""
    number: float = vector.item()
    return number


def largest_excess(vector: Floats, low: Floats, high: Floats, margin: Floats) -> float:
    """Computes how far the farthest number lies outside [low, high], in margins."""
    excess: Floats = np.maximum(low - vector, vector - high) / margin
    number: float = excess.max().item()
    return number


def over(x: float, y: Floats) -> float:
    """Divides by a constant."""
    return x / y.item()


def distance(vector: Floats, centre: Floats, whitener: Floats) -> float:
    """Computes |whitener (x - centre)|."""
    whitened: Floats = (vector - centre) @ whitener.T
    return sqrt(np.square(whitened).sum().item())
