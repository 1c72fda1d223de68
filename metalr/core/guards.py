"""Guards: what keeps a learned rate from doing harm, each visible when it acts and each off by an argument.

They act on a real run alone, between the law and the rate; meta-training goes without them. docs/guards.md says what
each sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from metalr.core.backend import Array, add, namespace, stack
from metalr.core.features import FeatureState
from metalr.core.update_rule import Clock

GUARDS = ("non_finite", "limit", "out_of_distribution", "divergence")
"""The guards by name, in the order of `GuardState.counts`."""

DIVERGENCE_CUT = math.log(2.0)
"""Nats by which s falls when a climb is met, at most once in the window of the middle averages."""

NOISES = 10.0
"""Noises of the loss by which, beside `Guards.climb`, it has to stand above its recent best."""

_SUSTAINED = 0.75
_WARM_UP = 50


@dataclass(frozen=True)
class Guards:
    """Settings of the guards.

    Args:
        non_finite: halve the rate on a step whose loss, gradient or policy output is not finite. Such a step never
            reaches the policy, also where this is off.
        min_factor: smallest factor of the rate over its reference schedule, in (0, 1]; None for no limit but the
            law's own (six decades).
        max_factor: largest such factor, 1 or more; None likewise.
        out_of_distribution: fade the policy's change where the features lie outside the region that it was
            meta-trained on, to nothing: the rate then follows the reference schedule from where it stands.
        divergence: descents so far (first loss - best loss), beside ten times the loss's noise, by which the loss has to
            stand above its recent best, for most of the steps of the fast average's window, to bring the rate down:
            it may not rise then, and is halved once in every window of the middle averages. None for off.
        on_divergence: what else such a divergence does: "warn" or "raise" (`DivergenceError`), with the step and the
            features; None for neither.

    Raises:
        ValueError: for a factor on the wrong side of 1, a climb that is not positive, or another word for divergence.
    """

    non_finite: bool = True
    min_factor: float | None = 1e-5
    max_factor: float | None = 1e5
    out_of_distribution: bool = True
    divergence: float | None = 1.0
    on_divergence: Literal["warn", "raise"] | None = None

    def __post_init__(self) -> None:
        if self.min_factor is not None and not 0.0 < self.min_factor <= 1.0:
            raise ValueError(f"min_factor={self.min_factor}: give a number in (0, 1], or None for no limit")
        if self.max_factor is not None and not 1.0 <= self.max_factor < math.inf:
            raise ValueError(f"max_factor={self.max_factor}: give a finite number of 1 or more, or None for no limit")
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
            raise ValueError(f"on_divergence={self.on_divergence!r} with divergence=None: nothing would be reported")

    @classmethod
    def none(cls) -> Guards:
        """All of them off."""
        return cls(non_finite=False, min_factor=None, max_factor=None, out_of_distribution=False, divergence=None)


DEFAULT_GUARDS = Guards()
"""What `MetaLR` and `MetaLRCallback` take where nothing is given."""


class GuardState(NamedTuple):
    """What the guards remember of R runs.

    Attributes:
        low: recent best of the loss's fast average: it rises towards that average over the slow window, so that a
            loss which drifts upwards over the run (a critic's, a generator's) is not a climb. Shape (R,).
        noise: standard deviation of the loss when it was at `low`; a climb inflates the present one. Shape (R,).
        share: of the steps in the fast window that stood far above `low`. Shape (R,).
        rest: steps since the last cut. Shape (R,).
        counts: actions of each guard so far, int64. Shape (4, R).
    """

    low: Array
    noise: Array
    share: Array
    rest: Array
    counts: Array

    @classmethod
    def empty(cls, runs: int, device: torch.device | str | None = None) -> GuardState:
        """Of runs that have not started."""
        low, noise, share, rest = torch.zeros(4, runs, device=device)
        return cls(low, noise, share, rest, torch.zeros(len(GUARDS), runs, dtype=torch.int64, device=device))


class Proposal(NamedTuple):
    """What the law makes of a step, before the guards: each of shape (R,).

    Attributes:
        loss: of this step.
        before: s_{t-1}, nats.
        after: s_t as `advance` has it, nats.
        finite: where loss and gradient were finite.
        asked: where the policy's output was finite, too, so that it had its say.
        strange: how far the features lie outside of the policy's support, in [0, 1]; None where that is not watched.
    """

    loss: Array
    before: Array
    after: Array
    finite: Array
    asked: Array
    strange: Array


def protect(
    guards: Guards, watch: GuardState, memory: FeatureState, clock: Clock, step: Proposal
) -> tuple[GuardState, Array, Array]:
    """Lets every guard act on one step of s.

    Args:
        guards: settings.
        watch: before this step.
        memory: of the features, after this step.
        clock: of this step.
        step: what the law makes of it.

    Returns:
        The watch after this step, s_t in nats, shape (R,), and which guards acted, bool, shape (4, R).
    """
    xp = namespace(step.after)
    failed = xp.logical_not(step.asked)
    idle = failed & step.asked
    failed, fades, cut = failed if guards.non_finite else idle, idle, idle
    s = step.after if guards.non_finite else xp.where(step.asked, step.after, step.before)
    if step.strange is not None:
        fades = step.asked & (step.strange > 0)
        s = xp.where(fades, s + step.strange * (step.before - s), s)
    if guards.divergence is not None:
        watch, climbing, cut = _detect_divergence(guards.divergence, watch, memory, clock, step)
        s = xp.where(climbing, xp.minimum(s, step.before), s)
        s = xp.where(cut, s - DIVERGENCE_CUT, s)
    low = -math.inf if guards.min_factor is None else math.log(guards.min_factor)
    high = math.inf if guards.max_factor is None else math.log(guards.max_factor)
    limited = xp.clip(s, low, high)
    acted = stack((failed, limited != s, fades, cut))
    return watch._replace(counts=add(watch.counts, acted)), limited, acted


def _detect_divergence(
    climb: float, watch: GuardState, memory: FeatureState, clock: Clock, step: Proposal
) -> tuple[GuardState, Array, Array]:
    """The watch after this step, where the loss climbs, and where the rate is cut for it now."""
    xp = namespace(step.after)
    fast_window, middle_window, slow_window = clock.windows
    fast, noise_now = memory.averages[0][0], xp.sqrt(memory.variance)
    risen = watch.low + (fast - watch.low) / slow_window
    best = (fast <= risen) | (memory.seen <= 1)
    low = xp.where(best, fast, risen)
    noise = xp.where(best, noise_now, watch.noise + (noise_now - watch.noise) / slow_window)
    far = step.loss - low > climb * (memory.first_loss - memory.best_loss) + NOISES * noise
    share = watch.share + xp.where(far, 1.0 - watch.share, -watch.share) / fast_window
    climbing = step.finite & (share > _SUSTAINED) & (memory.seen > _WARM_UP)
    cut = climbing & far & (watch.rest >= middle_window)
    watch = GuardState(
        low=xp.where(step.finite, low, watch.low),
        noise=xp.where(step.finite, noise, watch.noise),
        share=xp.where(step.finite, share, watch.share),
        rest=xp.where(cut, 0.0 * watch.rest, watch.rest + 1.0),
        counts=watch.counts,
    )
    return watch, climbing, cut
