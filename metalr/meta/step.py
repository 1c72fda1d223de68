"""The decision of one step of R inner runs, as a pure function; it is compiled once for a number of runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalr.features import Memory, observe
from metalr.law import Clock, advance
from metalr.meta.inner import Measured
from metalr.policy import Layers, apply_layers
from metalr.signals import Signals, alignment


class StepRecord(NamedTuple):
    """What one step saw and did: loss (R,), features (R, F), where they were finite (R,), rate (R,)."""

    loss: Tensor
    features: Tensor
    finite: Tensor
    lr: Tensor


def compile_part(function: Callable[..., Any], compiled: bool, dynamic: bool = False) -> Callable[..., Any]:
    """The function through torch.compile, or as it is."""
    if not compiled:
        return function
    # All networks share one code object, and the default allows eight compilations of it.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    return torch.compile(function, dynamic=dynamic, fullgraph=True)


@cache
def decide_part(compiled: bool) -> Callable[..., tuple[Memory, Tensor, Tensor, Tensor, Tensor]]:
    """`decide`, compiled or as it is."""
    return compile_part(decide, compiled)


def decide(
    memory: Memory,
    displacement: Tensor,
    seen: Measured,
    kind: Tensor,
    first: Tensor,
    layers: Layers,
    columns: Tensor,
    initial_lr: Tensor,
    row: Tensor,
    push: Tensor,
) -> tuple[Memory, Tensor, Tensor, Tensor, Tensor]:
    """Signals -> features -> policy -> law: the memory, the features, where finite, s, and the rate.

    The signals are the batched twin of `metalr.signals.measure`.

    Args:
        memory: of the features.
        displacement: s_{t-1}, nats, (R,).
        seen: this step's measurements.
        kind: as `Optimizees.kind`.
        first: as `Optimizees.first`.
        layers: of one policy or of R policies.
        columns: features that the policy reads.
        initial_lr: lr(0), (R,).
        row: of `metalr.law.clock_table`.
        push: added to the policy's output, (R,).
    """
    clock = Clock.from_row(row)
    start = memory.seen == 0
    cosine = torch.where(start, 0.0, alignment(seen.product, seen.grad_norm, seen.direction_norm))
    assumed = torch.where(first > 0, first, seen.grad_norm)
    update_norm = initial_lr * torch.where(start, assumed, seen.direction_norm)
    kinds = kind.expand_as(seen.loss)
    signals = Signals(seen.loss, seen.grad_norm, seen.param_norm, update_norm, cosine, kinds)
    memory, features, finite = observe(memory, signals, displacement, clock)
    output = apply_layers(layers, features.index_select(-1, columns)) + push
    displacement = advance(displacement, output, clock, finite)
    lr = initial_lr * torch.exp(clock.log_reference + displacement)
    return memory, features, finite, displacement, lr
