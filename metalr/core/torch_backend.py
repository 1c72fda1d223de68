"""The backend of many runs: torch's functions on tensors with a run dimension; see `metalr.core.backend`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, arcsinh, cos, exp, isfinite, log, logical_not, maximum, minimum, sqrt, square, tanh

__all__ = [
    "add",
    "affine",
    "approach",
    "arcsinh",
    "choose",
    "choose_stack",
    "clip",
    "cos",
    "distance",
    "equal",
    "exp",
    "has_no_nan",
    "isfinite",
    "largest_excess",
    "log",
    "logical_not",
    "masked",
    "maximum",
    "minimum",
    "only",
    "over",
    "relu",
    "select",
    "split",
    "sqrt",
    "square",
    "stack",
    "tanh",
    "total",
    "vector",
    "where",
]

State = TypeVar("State", bound="tuple[Any, ...]")


def where(condition: Tensor, if_true: Tensor, if_false: Tensor | float) -> Tensor:
    """Chooses one of two numbers, for each run."""
    return torch.where(condition, if_true, if_false)


def choose(condition: Tensor, if_true: State, if_false: State) -> State:
    """Chooses one of two states, for each run."""
    return type(if_true)(*(where(condition, a, b) for a, b in zip(if_true, if_false, strict=True)))


def choose_stack(condition: Tensor, if_true: Tensor, if_false: Tensor) -> Tensor:
    """Chooses one of two stacks, for each run."""
    return where(condition, if_true, if_false)


def equal(a: Tensor, b: Tensor | float) -> Tensor:
    """Tests whether two numbers are the same, for each run."""
    return torch.eq(a, b)


def clip(x: Tensor, low: float, high: float = math.inf) -> Tensor:
    """Returns the nearest number in [low, high]."""
    return torch.clip(x, low, high)


def stack(numbers: Iterable[Tensor]) -> Tensor:
    """Stacks C numbers, (R,) each, as (C, R)."""
    return torch.stack(tuple(numbers))


def add(a: Tensor, b: Tensor) -> Tensor:
    """Adds two stacks."""
    return a + b


def approach(stacks: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Moves each of the S stacks towards the target by its weight."""
    return stacks + weights[:, None] * (target - stacks)


def split(stacks: Tensor) -> tuple[Tensor, ...]:
    """Splits a stack of stacks into its S stacks."""
    return stacks.unbind()


def total(stacks: Tensor) -> Tensor:
    """Sums all elements of each run."""
    return stacks.sum((0, 1))


def vector(numbers: Sequence[Tensor], low: float, high: float) -> Tensor:
    """Joins C numbers, (R,) each, as (R, C), clipped."""
    return torch.stack(tuple(numbers), dim=-1).clip(low, high)


def select(vector: Tensor, columns: Tensor) -> Tensor:
    """Selects some of the columns."""
    return vector.index_select(-1, columns)


def has_no_nan(vector: Tensor) -> Tensor:
    """Tests whether no column of bounded rows is NaN."""
    return torch.isfinite(vector).all(-1)


def masked(condition: Tensor, vector: Tensor) -> Tensor:
    """Returns the rows where the condition holds, elsewhere zeros."""
    return where(condition[:, None], vector, 0.0)


def affine(weight: Tensor, bias: Tensor, vector: Tensor) -> Tensor:
    """Applies one layer: of one policy as one product for all runs, of a population as R of them."""
    if weight.dim() == 2:
        return F.linear(vector, weight, bias)
    return (weight @ vector[..., None]).squeeze(-1) + bias


def relu(vector: Tensor) -> Tensor:
    """Computes max(0, x)."""
    return vector.clip(0.0)


def only(vector: Tensor) -> Tensor:
    """Returns the only column."""
    return vector.squeeze(-1)


def largest_excess(vector: Tensor, low: Tensor, high: Tensor, margin: Tensor) -> Tensor:
    """Computes how far the farthest column lies outside [low, high], in margins."""
    return (torch.maximum(low - vector, vector - high) / margin).amax(-1)


def over(x: Tensor, y: Tensor) -> Tensor:
    """Divides by a constant ()."""
    return x / y


def distance(vector: Tensor, centre: Tensor, whitener: Tensor) -> Tensor:
    """Computes |whitener (x - centre)|."""
    return ((vector - centre) @ whitener.T).square().sum(-1).sqrt()
