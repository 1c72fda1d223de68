"""The decision of one step, as one pure function: signals -> features -> policy -> update rule.

A real run (`metalr.core.decider`, which adds the guards) and the batched runs of meta-training
(`metalr.meta.batched_decision`) call the same function, with a backend each.
"""

from __future__ import annotations

from typing import NamedTuple

from metalr.core.backend import Backend, Mask, Number, Vector
from metalr.core.features import FeatureState, observe
from metalr.core.policy import PolicyFunction
from metalr.core.signals import Signals
from metalr.core.update_rule import Clock, advance


class Decision(NamedTuple):
    """Holds what a step decides, for R runs.

    Attributes:
        feature_state: after this step.
        features: that were seen, all of them, (R, len(FEATURES)).
        read: those of them that the policy reads, (R, F).
        finite: where loss and gradient were finite, bool, (R,).
        action: the policy's output and its noise, (R,).
        log_multiplier: s_t by the update rule, before any guard, nats, (R,).
    """

    feature_state: FeatureState
    features: Vector
    read: Vector
    finite: Mask
    action: Number
    log_multiplier: Number


def decide(
    xp: Backend,
    policy: PolicyFunction,
    state: FeatureState,
    log_multiplier: Number,
    signals: Signals,
    clock: Clock,
    action_noise: Number | None = None,
) -> Decision:
    """Takes one step of R runs.

    Args:
        xp: backend of all that follows.
        policy: one for all runs, or one for each.
        state: of the features, before this step.
        log_multiplier: s_{t-1}, nats, (R,).
        signals: of this step.
        clock: of this step.
        action_noise: added to the policy's output, (R,); for exploration in meta-training.
    """
    seen = observe(xp, state, signals, log_multiplier, clock)
    read = seen.features if policy.columns is None else xp.select(seen.features, policy.columns)
    action = policy.action(xp, read)
    if action_noise is not None:
        action = action + action_noise
    after = advance(xp, log_multiplier, action, clock, seen.finite)
    return Decision(seen.state, seen.features, read, seen.finite, action, after)
