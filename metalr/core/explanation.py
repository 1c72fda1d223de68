"""Why a decision was taken: the decision as it was, and what each feature contributed to it, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from metalr.core.backend import TORCH
from metalr.core.guards import GUARDS
from metalr.core.policy import LRPolicy
from metalr.core.update_rule import Clock, advance, clock


@dataclass(frozen=True)
class Contribution:
    """Holds one feature's part in a decision.

    Attributes:
        value: what the policy read, in [-3, 3].
        contribution: what it added to the change of the log multiplier, nats.
    """

    value: float
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """Explains the last decision: s_t = s_{t-1} + change, change = sum of the features' contributions + constant.

    Attributes:
        step: optimizer step that the decision is for, from 0.
        log_multiplier: s_t, nats: log of the rate over its reference schedule.
        change: s_t - s_{t-1} by the update rule, before the guards and the bound on |s|, nats.
        constant: part of the change that no feature's value explains (the policy's biases), nats.
        features: by name.
        guards: names of the guards that acted on the decision.
    """

    step: int
    log_multiplier: float
    change: float
    constant: float
    features: dict[str, Contribution]
    guards: tuple[str, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """Holds a decision, copied where it lies: taking a snapshot waits for no device.

    Attributes:
        step: optimizer step that the decision is for, from 0.
        total_steps: T, as it stood.
        base_lr: initial rate of the first group.
        loss: fast average of the loss, (1,).
        log_multiplier: s_t, nats, (1,).
        change: s_t - s_{t-1}, nats, after the guards, (1,).
        features: all features, (1, len(FEATURES)).
        finite: whether loss and gradient were, bool, (1,).
        acted: which guards acted, bool, (len(GUARDS), 1).
        counts: interventions of each guard so far, (len(GUARDS), 1).
    """

    step: int
    total_steps: int | None
    base_lr: float
    loss: Tensor
    log_multiplier: Tensor
    change: Tensor
    features: Tensor
    finite: Tensor
    acted: Tensor
    counts: Tensor


class Attribution(NamedTuple):
    """Splits N decisions: change = sum of the features' contributions + constant.

    Attributes:
        change: of s by the update rule, before the guards and the bound on |s|, nats. Shape (N,).
        constant: what no feature's value explains (the policy's biases), nats. Shape (N,).
        contributions: of each feature, nats. Shape (N, F).
    """

    change: Tensor
    constant: Tensor
    contributions: Tensor


def attribute(policy: LRPolicy, read: Tensor, clocks: Clock, finite: Tensor) -> Attribution:
    """Attributes N decisions to the features, exactly.

    A ReLU network is linear around every point: a feature's contribution is its value times the action's derivative
    with respect to it, in proportion of the bounded change.

    Args:
        policy: that decided.
        read: features that it reads, (N, F).
        clocks: of the N steps, as `Clock.from_row` makes them of (8, N).
        finite: where loss and gradient were, (N,); elsewhere the policy was not asked, and all is constant.
    """
    read = read.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        action = policy.action(read)
        (slope,) = torch.autograd.grad(action.sum(), read)
    action = action.detach()
    change = cast(Tensor, advance(TORCH, torch.zeros_like(action), action, clocks, finite))
    scale = torch.where(finite & (action != 0.0), change / action, 0.0)
    contributions = slope * read.detach() * scale[:, None]
    return Attribution(change, change - contributions.sum(1), contributions)


def explain(policy: LRPolicy, seen: Snapshot) -> Explanation:
    """Names what each feature contributed to a decision."""
    device = policy.columns.device
    read = policy.select(seen.features.to(device))
    found = attribute(policy, read, clock(seen.step, seen.total_steps, device), seen.finite.to(device))
    parts = zip(policy.features, read[0].tolist(), found.contributions[0].tolist(), strict=True)
    return Explanation(
        step=seen.step,
        log_multiplier=float(seen.log_multiplier),
        change=float(found.change),
        constant=float(found.constant),
        features={name: Contribution(value, contribution) for name, value, contribution in parts},
        guards=tuple(name for name, acted in zip(GUARDS, seen.acted[:, 0].tolist(), strict=True) if acted),
    )
