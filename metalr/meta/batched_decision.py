"""The decision of one step of R inner runs, around the kernel of `metalr.core.decision`.

It is compiled once for a number of runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast

import torch
from torch import Tensor

from metalr.core.backend import TORCH
from metalr.core.decision import decide
from metalr.core.features import FeatureState
from metalr.core.policy import PolicyFunction
from metalr.core.signals import GradientSums, Signals, alignment, applied_size, distance_scale
from metalr.core.update_rule import Clock, lr_factor
from metalr.meta.compilation import compile_part
from metalr.meta.task import Measured


class RunConstants(NamedTuple):
    """Holds what stays the same in R runs from their first step to their last.

    Attributes:
        is_sgd: as `Optimizees.is_sgd`, bool, ().
        elements: number of parameters, ().
        initial_lr: lr(0), (R,).
        weight_structure: as `Optimizees.weight_structure`, (R,).
        steps_per_epoch: as `Optimizees.steps_per_epoch`, (R,).
    """

    is_sgd: Tensor
    elements: Tensor
    initial_lr: Tensor
    weight_structure: Tensor
    steps_per_epoch: Tensor


class RunState(NamedTuple):
    """Holds what R runs carry from decision to decision.

    Attributes:
        features: their state.
        log_multiplier: s, nats, (R,).
    """

    features: FeatureState
    log_multiplier: Tensor

    @classmethod
    def empty(cls, runs: int, device: torch.device) -> RunState:
        """Makes the state of runs that have not started."""
        return cls(FeatureState.empty(runs, device), torch.zeros(runs, device=device))

    def map(self, function: Callable[[Tensor], Tensor]) -> RunState:
        """Applies a function to every tensor."""
        parts = cast(tuple[Tensor, ...], self.features)
        return RunState(FeatureState(*(function(part) for part in parts)), function(self.log_multiplier))


class StepRecord(NamedTuple):
    """Records what one step saw and did: loss (R,), features (R, F), where they were finite (R,), rate (R,)."""

    loss: Tensor
    features: Tensor
    finite: Tensor
    lr: Tensor


@cache
def decide_part(compiled: bool) -> Callable[..., tuple[RunState, StepRecord]]:
    """Returns `decide_batch`, compiled or as it is."""
    return compile_part(decide_batch, compiled)


def batched_signals(
    state: RunState, measured: Measured, constants: RunConstants, validation: Tensor | None = None
) -> Signals:
    """Makes the signals of R runs, as `metalr.core.signals.Reading.signals` does for a real run."""
    start = cast(Tensor, state.features.seen) == 0
    cosine = cast(Tensor, alignment(TORCH, measured.product, measured.grad_norm, measured.direction_norm))
    ones = constants.elements.sqrt()
    size = applied_size(
        TORCH, constants.is_sgd, ~start, measured.direction_norm, of_gradient=measured.grad_norm, of_sign=ones
    )
    update_norm = constants.initial_lr * cast(Tensor, size)
    optimizer = torch.where(constants.is_sgd, 1.0, -1.0).expand_as(measured.loss)
    cosine = torch.where(start, 0.0, cosine)
    lr = constants.initial_lr
    sums = GradientSums(
        square=lr * measured.sum_norm.square(),
        lr_square=(lr * measured.sum_norm).square(),
        absolute=lr * measured.sum_absolute,
        ones_norm=lr * ones,
    )
    return Signals(
        loss=measured.loss,
        grad_norm=measured.grad_norm,
        param_norm=measured.param_norm,
        update_norm=update_norm,
        alignment=cosine,
        optimizer=optimizer,
        travel=measured.travel,
        origin_product=measured.origin_product,
        distance_scale=distance_scale(TORCH, optimizer > 0, sums),
        weight_structure=constants.weight_structure,
        validation=validation,
        steps_per_epoch=constants.steps_per_epoch,
    )


def decide_batch(
    policy: PolicyFunction,
    state: RunState,
    measured: Measured,
    constants: RunConstants,
    clock_row: Tensor,
    action_noise: Tensor,
    validation: Tensor | None = None,
) -> tuple[RunState, StepRecord]:
    """Decides one step of R runs: the kernel of real runs, without guards.

    Args:
        policy: one for all runs, or one for each.
        state: before this step.
        measured: of this step.
        constants: of the runs.
        clock_row: of `metalr.core.update_rule.clock_table`, (8,).
        action_noise: added to the policy's output, (R,).
        validation: losses that the policy is shown, (R,), NaN for none at this step; None for runs without any.
    """
    clock = Clock.from_row(clock_row)
    signals = batched_signals(state, measured, constants, validation)
    made = decide(
        TORCH,
        policy,
        state=state.features,
        log_multiplier=state.log_multiplier,
        signals=signals,
        clock=clock,
        action_noise=action_noise,
    )
    after = RunState(made.feature_state, cast(Tensor, made.log_multiplier))
    lr = constants.initial_lr * cast(Tensor, lr_factor(TORCH, made.log_multiplier, clock))
    return after, StepRecord(measured.loss, cast(Tensor, made.features), cast(Tensor, made.finite), lr)
