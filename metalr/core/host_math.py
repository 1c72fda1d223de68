"""torch's functions of the same names, for Python numbers: an operation on one takes a tenth of NumPy's time.

Like torch's they never raise: what is not defined is NaN, what is too large is infinite, and NaN spreads.
"""

from __future__ import annotations

import math
from typing import Any

LARGEST = 2.0**128 * (1.0 - 2.0**-24)
"""The largest float32: what lies beyond it is as good as infinite, here as in torch."""


def where(condition: bool, if_true: Any, if_false: Any) -> Any:
    """One of two values."""
    return if_true if condition else if_false


def logical_not(condition: bool) -> bool:
    """For a Python bool, `~` is something else."""
    return not condition


def isfinite(x: float) -> bool:
    """Whether a number is finite in float32."""
    return -LARGEST <= x <= LARGEST


def minimum(a: float, b: float) -> float:
    """The smaller one."""
    return a if a < b or a != a else b


def maximum(a: float, b: float) -> float:
    """The larger one."""
    return a if a > b or a != a else b


def clip(x: float, low: float, high: float = math.inf) -> float:
    """The nearest number in [low, high]."""
    return low if x < low else high if x > high else x


def square(x: float) -> float:
    """x^2."""
    return x * x


def sqrt(x: float) -> float:
    """The square root of a number that is not negative."""
    return math.sqrt(x) if x >= 0.0 else math.nan


def log(x: float) -> float:
    """The natural logarithm of a number that is not negative."""
    return math.log(x) if x > 0.0 else -math.inf if x == 0.0 else math.nan


def exp(x: float) -> float:
    """e^x."""
    return math.exp(x) if x < 709.78 else x * math.inf


tanh, arcsinh = math.tanh, math.asinh
