"""The decision of one step of R inner runs, as a pure function; it is compiled once for a number of runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalr.core.features import FeatureState, observe
from metalr.core.policy import Layers, apply_layers
from metalr.core.signals import Signals, alignment
from metalr.core.update_rule import Clock, advance
from metalr.meta.task import Measured


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
def decide_part(compiled: bool) -> Callable[..., tuple[FeatureState, Tensor, Tensor, Tensor, Tensor]]:
    """`decide`, compiled or as it is."""
    return compile_part(decide, compiled)


def decide(
    memory: FeatureState,
    log_multiplier: Tensor,
    seen: Measured,
    kind: Tensor,
    first: Tensor,
    layers: Layers,
    columns: Tensor,
    initial_lr: Tensor,
    row: Tensor,
    action_noise: Tensor,
) -> tuple[FeatureState, Tensor, Tensor, Tensor, Tensor]:
    """Signals -> features -> policy -> law: the memory, the features, where finite, s, and the rate.

    The signals are the batched twin of `metalr.core.signals.measure`.

    Args:
        memory: of the features.
        log_multiplier: s_{t-1}, nats, (R,).
        seen: this step's measurements.
        kind: as `Optimizees.kind`.
        first: as `Optimizees.first`.
        layers: of one policy or of R policies.
        columns: features that the policy reads.
        initial_lr: lr(0), (R,).
        row: of `metalr.core.update_rule.clock_table`.
        action_noise: added to the policy's output, (R,).
    """
    clock = Clock.from_row(row)
    start = memory.seen == 0
    cosine = torch.where(start, 0.0, alignment(seen.product, seen.grad_norm, seen.direction_norm))
    assumed = torch.where(first > 0, first, seen.grad_norm)
    update_norm = initial_lr * torch.where(start, assumed, seen.direction_norm)
    kinds = kind.expand_as(seen.loss)
    signals = Signals(seen.loss, seen.grad_norm, seen.param_norm, update_norm, cosine, kinds)
    memory, features, finite = observe(memory, signals, log_multiplier, clock)
    output = apply_layers(layers, features.index_select(-1, columns)) + action_noise
    log_multiplier = advance(log_multiplier, output, clock, finite)
    lr = initial_lr * torch.exp(clock.log_reference + log_multiplier)
    return memory, features, finite, log_multiplier, lr
