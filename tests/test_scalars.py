"""The functions of Python numbers are torch's, for every number that there is."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr.core import host_math as scalars

numbers = st.floats(width=32)


def same(a: float, b: torch.Tensor) -> bool:
    return a == pytest.approx(float(b), rel=1e-6, nan_ok=True)


@given(x=numbers)
@pytest.mark.parametrize("name", ["square", "sqrt", "log", "exp", "tanh", "arcsinh"])
def test_a_function_of_one_number(name, x):
    assert same(getattr(scalars, name)(x), getattr(torch, name)(torch.tensor(x, dtype=torch.float64)))


@given(x=numbers, y=numbers)
def test_functions_of_two_numbers(x, y):
    a, b = torch.tensor(x), torch.tensor(y)
    assert same(scalars.minimum(x, y), torch.minimum(a, b))
    assert same(scalars.maximum(x, y), torch.maximum(a, b))
    assert same(scalars.where(x > y, x, y), torch.where(a > b, a, b))
    assert scalars.logical_not(x > y) is bool(torch.logical_not(a > b))


@given(x=numbers, low=st.floats(-3, 0, width=32))
def test_clipping(x, low):
    assert same(scalars.clip(x, low), torch.clip(torch.tensor(x), low))
    assert same(scalars.clip(x, low, 1.0), torch.clip(torch.tensor(x), low, 1.0))


@pytest.mark.parametrize("x", [0.0, 3e38, -3e38, 4e38, 1e300, math.inf, -math.inf, math.nan])
def test_finite_is_what_float32_holds(x):
    assert scalars.isfinite(x) is bool(torch.isfinite(torch.tensor(x, dtype=torch.float64).float()))
