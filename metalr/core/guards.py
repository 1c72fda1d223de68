"""Guards: what keeps a learned rate from doing harm, each visible when it acts and each off by an argument.

They act on a real run alone, between the update rule and the rate; meta-training goes without them. docs/guards.md says
what each sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from metalr.core.backend import Backend, Mask, Number, Stack
from metalr.core.features import FeatureState
from metalr.core.lr_limits import UNLIMITED, LogBounds
from metalr.core.update_rule import Clock

DIVERGENCE_CUT = math.log(2.0)
"""Nats by which s falls when a divergence is seen, at most once in the window of the middle averages."""

NOISES = 10.0
"""Noises of the loss by which, beside `Guards.divergence`, it has to stand above its recent best."""

_SUSTAINED = 0.75
_WARM_UP = 50


@dataclass(frozen=True)
class Guards:
    """Settings of the guards.

        MetaLR(optimizer, total_steps=1000, guards=Guards(max_multiplier=100.0, on_divergence="raise"))

    Args:
        non_finite: halve the rate on a step whose loss, gradient or action is not finite. Such a step never reaches
            the policy, also where this is off.
        min_multiplier: smallest multiplier of the rate over its reference schedule, in (0, 1]; None for no limit but
            the update rule's own (six decades).
        max_multiplier: largest such multiplier, 1 or more; None likewise.
        out_of_distribution: fade the policy's change where the features lie outside of the region that it was
            meta-trained on, to nothing: the rate then follows the reference schedule from where it stands.
        divergence: descents so far (first loss - best loss), beside ten times the loss's noise, by which the loss
            has to stand above its recent best, for most of the steps of the fast average's window, to bring the rate
            down: it may not rise then, and is halved once in every window of the middle averages. None for off.
        on_divergence: what else such a divergence does: "warn" or "raise" (`DivergenceError`), with the step and the
            features; None for neither.

    Raises:
        ValueError: for a multiplier on the wrong side of 1, a divergence that is not positive, or an unknown
            on_divergence.
    """

    non_finite: bool = True
    min_multiplier: float | None = 1e-5
    max_multiplier: float | None = 1e5
    out_of_distribution: bool = True
    divergence: float | None = 1.0
    on_divergence: Literal["warn", "raise"] | None = None

    def __post_init__(self) -> None:
        low, high = self.min_multiplier, self.max_multiplier
        if low is not None and not 0.0 < low <= 1.0:
            raise ValueError(f"min_multiplier={low}: give a number in (0, 1], or None for no limit")
        if high is not None and not 1.0 <= high < math.inf:
            raise ValueError(f"max_multiplier={high}: give a finite number of 1 or more, or None for no limit")
        if isinstance(self.divergence, str):
            raise ValueError(
                f"divergence={self.divergence!r}: give a number of descents, or None for off; what a divergence does "
                f"is on_divergence={self.divergence!r}"
            )
        if self.divergence is not None and not 0.0 < self.divergence < math.inf:
            raise ValueError(f"divergence={self.divergence}: give a number of descents above 0, or None for off")
        if self.on_divergence not in (None, "warn", "raise"):
            raise ValueError(f"on_divergence={self.on_divergence!r}: choose 'warn', 'raise' or None")
        if self.on_divergence is not None and self.divergence is None:
            raise ValueError(f"on_divergence={self.on_divergence!r} with divergence=None: nothing would be seen")

    @classmethod
    def none(cls) -> Guards:
        """Turns all of them off."""
        return cls(
            non_finite=False, min_multiplier=None, max_multiplier=None, out_of_distribution=False, divergence=None
        )


DEFAULT_GUARDS = Guards()
"""What `MetaLR` and `MetaLRCallback` take where nothing is given."""


class GuardActions(NamedTuple):
    """Which guards acted on a step, bool, each of shape (R,)."""

    non_finite: Mask
    limit: Mask
    out_of_distribution: Mask
    divergence: Mask


GUARDS = GuardActions._fields
"""The guards by name, in the order of `GuardState.counts`."""


class GuardState(NamedTuple):
    """What the guards remember of R runs.

    Attributes:
        low: recent best of the loss's fast average: it rises towards that average over the slow window, so that a
            loss which drifts upwards over the run (a critic's, a generator's) is no divergence. Shape (R,).
        noise: standard deviation of the loss when it was at `low`; a divergence inflates the present one. Shape (R,).
        share: of the steps in the fast window that stood far above `low`. Shape (R,).
        rest: steps since the last cut. Shape (R,).
        counts: actions of each guard so far, int64. Shape (4, R).
    """

    low: Number
    noise: Number
    share: Number
    rest: Number
    counts: Stack

    @classmethod
    def empty(cls, runs: int, device: torch.device | str | None = None) -> GuardState:
        """Makes the state of runs that have not started, of tensors."""
        low, noise, share, rest = torch.zeros(4, runs, device=device)
        return cls(low, noise, share, rest, torch.zeros(len(GUARDS), runs, dtype=torch.int64, device=device))


class Proposal(NamedTuple):
    """What the update rule makes of a step, before the guards: each of shape (R,).

    Attributes:
        loss: of this step.
        before: s_{t-1}, nats.
        after: s_t as `advance` has it, nats.
        finite: where loss and gradient were finite.
        asked: where the action was finite, too, so that the policy decided.
        score: how far the features lie outside of the policy's support, in [0, 1]; None where that is not looked at.
        bounds: of the log of the factor of the initial rates, see `metalr.core.lr_limits.LRLimits`.
    """

    loss: Number
    before: Number
    after: Number
    finite: Mask
    asked: Mask
    score: Number | None
    bounds: LogBounds = UNLIMITED


class Guarded(NamedTuple):
    """What the guards make of a proposal.

    Attributes:
        state: of the guards, after this step.
        log_multiplier: s_t, nats, (R,).
        actions: which guards acted.
    """

    state: GuardState
    log_multiplier: Number
    actions: GuardActions


def protect(
    xp: Backend, guards: Guards, state: GuardState, features: FeatureState, clock: Clock, step: Proposal
) -> Guarded:
    """Lets every guard act on one step of the log multiplier.

    Args:
        xp: backend of the numbers.
        guards: settings.
        state: of the guards, before this step.
        features: state of the features, after this step.
        clock: of this step.
        step: what the update rule makes of it.
    """
    failed = xp.logical_not(step.asked)
    idle = failed & step.asked
    failed, fades, cut = failed if guards.non_finite else idle, idle, idle
    s = step.after if guards.non_finite else xp.where(step.asked, step.after, step.before)
    if step.score is not None:
        fades = step.asked & (step.score > 0)
        s = xp.where(fades, s + step.score * (step.before - s), s)
    if guards.divergence is not None:
        state, diverging, cut = _detect_divergence(xp, guards.divergence, state, features, clock, step)
        s = xp.where(diverging, xp.minimum(s, step.before), s)
        s = xp.where(cut, s - DIVERGENCE_CUT, s)
    limited = _limit(xp, guards, s, clock, step.bounds)
    actions = GuardActions(failed, xp.logical_not(xp.equal(limited, s)), fades, cut)
    return Guarded(state._replace(counts=xp.add(state.counts, xp.stack(actions))), limited, actions)


def _limit(xp: Backend, guards: Guards, s: Number, clock: Clock, bounds: LogBounds) -> Number:
    """Brings s within the multiplier's limits, and then the rate within its own, which are the user's."""
    low = -math.inf if guards.min_multiplier is None else math.log(guards.min_multiplier)
    high = math.inf if guards.max_multiplier is None else math.log(guards.max_multiplier)
    s = xp.clip(s, low, high)
    if bounds.low > -math.inf:
        s = xp.maximum(s, bounds.low - clock.log_reference + 0.0 * s)
    if bounds.high < math.inf:
        s = xp.minimum(s, bounds.high - clock.log_reference + 0.0 * s)
    return s


def _detect_divergence(
    xp: Backend, descents: float, state: GuardState, features: FeatureState, clock: Clock, step: Proposal
) -> tuple[GuardState, Mask, Mask]:
    """Gives the state after this step, where the loss diverges, and where the rate is cut for it now."""
    fast, _, _ = features.windows(xp)
    noise_now = xp.sqrt(features.variance)
    risen = state.low + (fast.loss - state.low) / clock.slow_window
    best = (fast.loss <= risen) | (features.seen <= 1)
    low = xp.where(best, fast.loss, risen)
    noise = xp.where(best, noise_now, state.noise + (noise_now - state.noise) / clock.slow_window)
    far = step.loss - low > descents * (features.first_loss - features.best_loss) + NOISES * noise
    share = state.share + xp.where(far, 1.0 - state.share, -state.share) / clock.fast_window
    diverging = step.finite & (share > _SUSTAINED) & (features.seen > _WARM_UP)
    cut = diverging & far & (state.rest >= clock.middle_window)
    after = GuardState(
        low=xp.where(step.finite, low, state.low),
        noise=xp.where(step.finite, noise, state.noise),
        share=xp.where(step.finite, share, state.share),
        rest=xp.where(cut, 0.0 * state.rest, state.rest + 1.0),
        counts=state.counts,
    )
    return after, diverging, cut
