"""The two backends agree, for every number that there is, and have every function of the protocol."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr.core import host_backend, torch_backend
from metalr.core.backend import Operations
from metalr.core.update_rule import Clock

numbers = st.floats(width=32)


def same(a: float, b: torch.Tensor) -> bool:
    return a == pytest.approx(float(b), rel=1e-6, nan_ok=True)


@given(x=numbers)
@pytest.mark.parametrize("name", ["square", "sqrt", "log", "exp", "tanh", "arcsinh"])
def test_a_function_of_one_number(name, x):
    assert same(getattr(host_backend, name)(x), getattr(torch, name)(torch.tensor(x, dtype=torch.float64)))


@given(x=numbers, y=numbers)
def test_functions_of_two_numbers(x, y):
    a, b = torch.tensor(x), torch.tensor(y)
    assert same(host_backend.minimum(x, y), torch.minimum(a, b))
    assert same(host_backend.maximum(x, y), torch.maximum(a, b))
    assert same(host_backend.where(x > y, x, y), torch.where(a > b, a, b))
    assert host_backend.logical_not(x > y) is bool(torch.logical_not(a > b))


@given(x=numbers, low=st.floats(-3, 0, width=32))
def test_clipping(x, low):
    assert same(host_backend.clip(x, low), torch.clip(torch.tensor(x), low))
    assert same(host_backend.clip(x, low, 1.0), torch.clip(torch.tensor(x), low, 1.0))


@pytest.mark.parametrize("x", [0.0, 3e38, -3e38, 4e38, 1e300, math.inf, -math.inf, math.nan])
def test_finite_is_what_float32_holds(x):
    assert host_backend.isfinite(x) is bool(torch.isfinite(torch.tensor(x, dtype=torch.float64).float()))


def functions_of_the_protocol() -> list[str]:
    return [name for name in vars(Operations) if not name.startswith("_")]


@pytest.mark.parametrize("name", functions_of_the_protocol())
def test_both_backends_have_every_function_with_the_same_parameters(name):
    wanted = len(inspect.signature(getattr(Operations, name)).parameters) - 1  # self
    for backend in (host_backend, torch_backend):
        try:
            found = len(inspect.signature(getattr(backend, name)).parameters)
        except ValueError:  # a builtin of torch or of math, whose parameters nobody can list
            continue
        assert found == wanted, (backend.__name__, name)


rows = st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3)


@given(x=rows, y=rows, weights=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2), holds=st.booleans())
def test_functions_of_stacks(x, y, weights, holds):
    stacks, target = [x, y], y
    tensors, goal, mask = torch.tensor(stacks)[..., None], torch.tensor(y)[:, None], torch.tensor([holds])

    def agree(a: object, b: torch.Tensor) -> bool:
        return torch.allclose(torch.as_tensor(np.array(a)).float(), b[..., 0], atol=1e-5)

    moved = torch_backend.approach(tensors, goal, torch.tensor(weights)[:, None])
    assert agree(host_backend.approach(stacks, target, weights), moved)
    assert agree(host_backend.add(x, y), torch_backend.add(tensors[0], tensors[1]))
    assert agree(host_backend.total(stacks), torch_backend.total(tensors))
    assert agree(host_backend.choose_stack(holds, x, y), torch_backend.choose_stack(mask, tensors[0], tensors[1]))
    assert agree(list(host_backend.split(stacks))[1], list(torch_backend.split(tensors))[1])
    chosen = torch_backend.choose(mask, Clock(*torch.ones(8, 1)), Clock(*torch.zeros(8, 1)))
    assert [float(part) for part in chosen] == [float(holds)] * 8


@given(x=rows, holds=st.booleans())
def test_functions_of_vectors(x, holds):
    host, tensor = np.array(x), torch.tensor([x])
    weight, bias = torch.arange(6.0).view(2, 3) - 2.0, torch.tensor([0.5, -0.5])

    def agree(a: object, b: torch.Tensor) -> bool:
        return torch.allclose(torch.as_tensor(np.array(a)).float(), b[0], atol=1e-4)

    assert agree(host_backend.vector(x, -1.0, 1.0), torch_backend.vector([torch.tensor([v]) for v in x], -1.0, 1.0))
    assert agree(host_backend.select(host, np.array([2, 0])), torch_backend.select(tensor, torch.tensor([2, 0])))
    assert agree(host_backend.masked(holds, host), torch_backend.masked(torch.tensor([holds]), tensor))
    assert agree(host_backend.affine(weight.numpy(), bias.numpy(), host), torch_backend.affine(weight, bias, tensor))
    assert agree(host_backend.relu(host), torch_backend.relu(tensor))
    low, high, margin = -torch.ones(3), torch.ones(3), torch.tensor([0.25, 0.5, 1.0])
    bounds = (low, high, margin)
    excess = host_backend.largest_excess(host, *(part.numpy() for part in bounds))
    assert agree(excess, torch_backend.largest_excess(tensor, *bounds))
    whitener = torch.tril(torch.ones(3, 3))
    distance = host_backend.distance(host, low.numpy(), whitener.numpy())
    assert agree(distance, torch_backend.distance(tensor, low, whitener))
    assert agree(host_backend.over(2.0, np.array(4.0)), torch_backend.over(torch.tensor([2.0]), torch.tensor(4.0)))
    assert host_backend.only(host[:1]) == float(torch_backend.only(tensor[:, :1]))


@pytest.mark.parametrize("bad", [math.nan, 1.0])
def test_a_nan_among_bounded_numbers_is_seen(bad):
    host, tensor = np.array([1.0, bad]), torch.tensor([[1.0, bad]])
    assert bool(host_backend.has_no_nan(host)) is bool(torch_backend.has_no_nan(tensor)) is (not math.isnan(bad))
