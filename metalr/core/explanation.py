"""One decision as it was taken, and what each feature added to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy, apply_layers
from metalr.core.update_rule import Clock, advance


@dataclass(frozen=True)
class Snapshot:
    """A decision, copied where it lies: taking a snapshot waits for no device.

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
        counts: actions of each guard so far, (len(GUARDS), 1).
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
    """What N decisions are made of: change = sum of the features' nats + constant.

    Attributes:
        change: of s by the law, before the guards and the bound on |s|, nats. Shape (N,).
        constant: what no feature's value explains (the policy's biases), nats. Shape (N,).
        nats: what each feature added. Shape (N, F).
    """

    change: Tensor
    constant: Tensor
    nats: Tensor


def attribute(policy: LRPolicy, read: Tensor, clocks: Clock, finite: Tensor) -> Attribution:
    """What each feature added to N decisions, exactly.

    A ReLU network is linear around every point: a feature's part is its value times the output's derivative with
    respect to it, in proportion of the bounded change.

    Args:
        policy: that decided.
        read: features that it reads, (N, F).
        clocks: of the N steps, as `Clock.from_row` makes them of (7, N).
        finite: where loss and gradient were, (N,); elsewhere the policy was not asked, and all is constant.
    """
    read = read.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        output = apply_layers(policy.shared_layers(), read)
        (slope,) = torch.autograd.grad(output.sum(), read)
    output = output.detach()
    change = advance(torch.zeros_like(output), output, clocks, finite)
    scale = torch.where(finite & (output != 0.0), change / output, 0.0)
    nats = slope * read.detach() * scale[:, None]
    return Attribution(change, change - nats.sum(1), nats)
