"""Guards: they keep a learned rate from doing harm; each reports when it acts, and can be turned off.

They act on real runs only, between the update rule and the rate; meta-training does not use them. docs/guards.md says
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

COLLAPSE_CUT = math.log(10.0)
"""Nats by which the rate falls when a collapse is seen; it may not rise above that any more."""

_LOST, _STILL_LOST = 0.6, 0.4
"""Shares of the descent that a run has to lose to look collapsed, and to go on looking so."""

_ABOVE_FIRST = 0.5
"""Descents by which its loss may stand above the first one: farther up, it is no return to where it began."""

_DESCENT, _SURE_DESCENT = 1.5, 4.0
"""Smallest descent, in units of the loss's noise, that counts: with a vanishing gradient, and without one."""

_DEAD, _DYING, _DEAD_ALONE = math.log(5.0), math.log(4.0), math.log(10.0)
"""Nats by which the gradient has to lie below what it was: to be dead where the loss has risen; to look so, and to be
dead, where the loss may only stand where it began."""

_LARGER = math.log(1.2)
"""Nats above it from which on it is a larger one: the loss has risen for another reason."""

_STAYED = 2.0
"""Middle windows for which a run with a dead gradient has to look collapsed; any other, the slow window."""

_TREND, _OFF_BEST = 0.25, 0.25
"""Noises by which the middle average of a loss that does not fall may lie below the slow one, and descents by which it
lies above its best."""


@dataclass(frozen=True)
class Guards:
    """Sets what the guards do, and which of them are on.

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
        collapse: bring the rate down to a tenth, and keep it from rising above that again, where the run has lost what
            it had learned or began with: docs/guards.md says how that is seen.
        restore: steps between copies of the weights and of the optimizer's state, kept on the host, to which a run goes
            back when it has collapsed; None for no copy. One is taken at the first step, and another, after so many
            steps at the earliest, when the loss has fallen since.

    Raises:
        ValueError: for a multiplier on the wrong side of 1, a divergence that is not positive, an unknown
            on_divergence, or a restore that is no number of steps or has no collapse to answer to.

    Example:
        >>> import torch
        >>> from metalr import Guards, MetaLR
        >>> optimizer = torch.optim.SGD(torch.nn.Linear(8, 3).parameters(), lr=0.1)
        >>> guards = Guards(max_multiplier=100.0, on_divergence="raise")
        >>> meta_lr = MetaLR(optimizer, total_steps=1000, guards=guards)
        >>> meta_lr.events
        []
    """

    non_finite: bool = True
    min_multiplier: float | None = 1e-5
    max_multiplier: float | None = 1e5
    out_of_distribution: bool = True
    divergence: float | None = 1.0
    on_divergence: Literal["warn", "raise"] | None = None
    collapse: bool = True
    restore: int | None = None

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
        self._check_restore()

    def _check_restore(self) -> None:
        steps = self.restore
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise ValueError(
                f"restore={steps!r}: give the number of steps between copies of the weights, 1 or more, such as 100, "
                "or None for no copy"
            )
        if steps is not None and not self.collapse:
            raise ValueError(f"restore={steps} with collapse=False: no collapse would be seen; leave one of them out")

    @classmethod
    def none(cls) -> Guards:
        """Turns all of them off."""
        return cls(
            non_finite=False,
            min_multiplier=None,
            max_multiplier=None,
            out_of_distribution=False,
            divergence=None,
            collapse=False,
        )


DEFAULT_GUARDS = Guards()
"""What `MetaLR` and `MetaLRCallback` take where nothing is given."""


class GuardInterventions(NamedTuple):
    """Flags which guards acted on a step, bool, each of shape (R,)."""

    non_finite: Mask
    limit: Mask
    out_of_distribution: Mask
    divergence: Mask
    collapse: Mask


GUARDS = GuardInterventions._fields
"""The guards by name, in the order of `GuardState.counts`."""


class GuardState(NamedTuple):
    """Holds what the guards remember of R runs.

    Attributes:
        low: recent best of the loss's fast average: it rises towards that average over the slow window, so that a
            loss which drifts upwards over the run (a critic's, a generator's) is no divergence. Shape (R,).
        noise: standard deviation of the loss when it was at `low`; a divergence inflates the present one. Shape (R,).
        share: of the steps in the fast window that stood far above `low`. Shape (R,).
        rest: steps since the last cut. Shape (R,).
        gradient: fast average of log |g| when the loss was at `low`, towards which it goes likewise. Shape (R,).
        stayed: steps for which the run has looked collapsed; infinite where the guard has acted on it. Shape (R,).
        lost: loss above which the run goes on looking so. Shape (R,).
        alive: log |g| of when it did not. Shape (R,).
        ceiling: log of the factor of the initial rates that a collapse has left, nats. Shape (R,).
        counts: interventions of each guard so far, int64. Shape (5, R).
    """

    low: Number
    noise: Number
    share: Number
    rest: Number
    gradient: Number
    stayed: Number
    lost: Number
    alive: Number
    ceiling: Number
    counts: Stack

    @classmethod
    def empty(cls, runs: int, device: torch.device | str | None = None) -> GuardState:
        """Makes the state of runs that have not started, of tensors."""

        def zeros() -> torch.Tensor:
            return torch.zeros(runs, device=device)

        return cls(
            low=zeros(),
            noise=zeros(),
            share=zeros(),
            rest=zeros(),
            gradient=zeros(),
            stayed=zeros(),
            lost=zeros(),
            alive=zeros(),
            ceiling=torch.full((runs,), math.inf, device=device),
            counts=torch.zeros(len(GUARDS), runs, dtype=torch.int64, device=device),
        )


class Proposal(NamedTuple):
    """Holds what the update rule makes of a step, before the guards: each of shape (R,).

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
    """Holds what the guards make of a proposal.

    Attributes:
        state: of the guards, after this step.
        log_multiplier: s_t, nats, (R,).
        interventions: which guards acted.
    """

    state: GuardState
    log_multiplier: Number
    interventions: GuardInterventions


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
    failed, fades, cut, collapsed = failed if guards.non_finite else idle, idle, idle, idle
    s = step.after if guards.non_finite else xp.where(step.asked, step.after, step.before)
    if step.score is not None:
        fades = step.asked & (step.score > 0)
        s = xp.where(fades, s + step.score * (step.before - s), s)
    if guards.divergence is not None or guards.collapse:
        state = _remember_best(xp, state, features, clock, step)
    if guards.divergence is not None:
        state, diverging, cut = _detect_divergence(xp, guards.divergence, state, features, clock, step)
        s = xp.where(diverging, xp.minimum(s, step.before), s)
        s = xp.where(cut, s - DIVERGENCE_CUT, s)
    if guards.collapse:
        state, collapsed = _detect_collapse(xp, state, features, clock, step)
        s = xp.minimum(s, state.ceiling - clock.log_reference)
    limited = _limit(xp, guards, s, clock, step.bounds)
    interventions = GuardInterventions(failed, xp.logical_not(xp.equal(limited, s)), fades, cut, collapsed)
    counts = xp.add(state.counts, xp.stack(interventions))
    return Guarded(state._replace(counts=counts), limited, interventions)


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


def _remember_best(xp: Backend, state: GuardState, features: FeatureState, clock: Clock, step: Proposal) -> GuardState:
    """Takes a step into what is kept of the loss's recent best."""
    fast, _, _ = features.windows(xp)
    risen = state.low + (fast.loss - state.low) / clock.slow_window
    best = (fast.loss <= risen) | (features.seen <= 1)
    noise_now, gradient_now = xp.sqrt(features.variance), fast.log_grad_norm
    low = xp.where(best, fast.loss, risen)
    noise = xp.where(best, noise_now, state.noise + (noise_now - state.noise) / clock.slow_window)
    gradient = xp.where(best, gradient_now, state.gradient + (gradient_now - state.gradient) / clock.slow_window)
    return state._replace(
        low=xp.where(step.finite, low, state.low),
        noise=xp.where(step.finite, noise, state.noise),
        gradient=xp.where(step.finite, gradient, state.gradient),
    )


def _detect_divergence(
    xp: Backend, descents: float, state: GuardState, features: FeatureState, clock: Clock, step: Proposal
) -> tuple[GuardState, Mask, Mask]:
    """Gives the state after this step, where the loss diverges, and where the rate is cut for it now."""
    rise = descents * (features.first_loss - features.best_loss) + NOISES * state.noise
    far = step.loss - state.low > rise
    share = state.share + xp.where(far, 1.0 - state.share, -state.share) / clock.fast_window
    diverging = step.finite & (share > _SUSTAINED) & (features.seen > _WARM_UP)
    cut = diverging & far & (state.rest >= clock.middle_window)
    share = xp.where(step.finite, share, state.share)
    return state._replace(share=share, rest=xp.where(cut, 0.0 * state.rest, state.rest + 1.0)), diverging, cut


def _detect_collapse(
    xp: Backend, state: GuardState, features: FeatureState, clock: Clock, step: Proposal
) -> tuple[GuardState, Mask]:
    """Gives the state after this step, and where a collapse is seen now.

    A run looks collapsed where the fast average of the loss has lost most of the descent, and the gradient is no larger
    than it was at the loss's best: a loss that has risen for another reason has a larger one. It has collapsed when it
    stays so, for a short time with a gradient that is dead, for a long time with any other. A run whose loss
    stands, with no descent to speak of, looks so where its gradient has died, and has collapsed when that lasts.
    """
    fast, middle, slow = features.windows(xp)
    noise, fallen = state.noise, features.first_loss - features.best_loss
    descent = xp.maximum(fallen, noise)
    looked_so = state.stayed > 0
    lost = xp.where(looked_so, state.lost, state.low + _LOST * descent)
    alive = xp.where(looked_so, state.alive, state.gradient)

    above = fast.loss - features.first_loss
    is_back = (fast.loss > lost) & (above < _ABOVE_FIRST * descent + noise)
    has_returned = is_back & (fast.log_grad_norm < alive + _LARGER) & (fallen > _DESCENT * noise)
    alive = xp.where(looked_so | has_returned, alive, slow.log_grad_norm)
    is_flat = (middle.loss > features.best_loss + _OFF_BEST * fallen) & (middle.loss > slow.loss - _TREND * noise)
    is_there = is_flat & (fallen < _SURE_DESCENT * noise) & (above < _SURE_DESCENT * noise)
    looks_so = has_returned | (is_there & (middle.log_grad_norm < alive - _DYING))

    stayed = xp.where(looks_so, state.stayed + 1.0, 0.0 * state.rest)
    is_sure = (middle.log_grad_norm < alive - _DEAD_ALONE) | (fallen > _SURE_DESCENT * noise)
    died = (stayed >= _STAYED * clock.middle_window) & (middle.log_grad_norm < alive - _DEAD)
    soon = died & (stayed < clock.slow_window)  # one that fades over the run is no death
    collapsed = (soon | (is_sure & (stayed >= clock.slow_window))) & (stayed < math.inf) & (features.seen > _WARM_UP)
    collapsed = step.finite & looks_so & collapsed
    stayed = xp.where(collapsed, stayed + math.inf, stayed)
    still_lost = state.low + _STILL_LOST * descent
    left = xp.minimum(state.ceiling, step.before + clock.log_reference - COLLAPSE_CUT)
    return state._replace(
        stayed=xp.where(step.finite, stayed, state.stayed),
        lost=xp.where(looked_so, state.lost, still_lost),
        alive=xp.where(step.finite, alive, state.alive),
        ceiling=xp.where(collapsed, left, state.ceiling),
    ), collapsed
