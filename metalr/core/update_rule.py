"""The update rule: what an action of the policy does to the learning rate.

For parameter group g at optimizer step t of T:

    lr_g(t) = lr_g(0) * ref(t/T) * exp(s_t)
    s_t     = s_{t-1} + bound_t * tanh(action_t),    s_{-1} = 0,    action_t = policy(features_t)

bound_t is one number for a rise and a larger one for a fall: a rise is a guess until its effect on the loss has been
seen, and a fall answers what has been seen. s is the log multiplier, exp(s) the multiplier of the rate over its
reference schedule, and ref(t/T) exp(s_t) the factor of the initial rate. A policy that outputs zero is the reference
schedule. Everything that depends on time alone is in a `Clock`, so that a real run and thousands of batched inner runs
read the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from metalr.core.backend import HOST, Backend, Mask, Number

VERSION = 2
"""Raised by a change of the rule, under which the same policy gives other rates."""

REFERENCE_FLOOR = 1e-3
"""Smallest value of the cosine reference: its logarithm has to stay finite."""

WINDOW_SHARES = (0.01, 0.05, 0.2)
"""Windows of the fast, middle and slow averages as shares of the span."""

MIN_WINDOWS = (4.0, 8.0, 16.0)
"""Minimum window lengths, steps."""

MAX_LOG_MULTIPLIER = 14.0
"""Bound on |s| in nats (six decades): keeps exp(s) finite whatever a policy does."""

NON_FINITE_CUT = math.log(2.0)
"""Nats by which s falls on a step whose loss or gradient is not finite."""


class Clock(NamedTuple):
    """Holds all that the update rule and the features read off the time.

    Each is a float, or a float32 tensor of shape ().

    Attributes:
        progress: 2 t/T - 1, in [-1, 1]; 0 in the anytime mode.
        early: exp(-t/10), in (0, 1].
        log_reference: log ref(t/T), nats, <= 0; 0 in the anytime mode.
        rise_bound: largest rise of s at this step, nats.
        fall_bound: largest fall of s at this step, nats.
        fast_window: length of the fast averages, steps.
        middle_window: length of the middle averages, steps.
        slow_window: length of the slow averages, steps.
    """

    progress: Number
    early: Number
    log_reference: Number
    rise_bound: Number
    fall_bound: Number
    fast_window: Number
    middle_window: Number
    slow_window: Number

    @classmethod
    def from_row(cls, row: Iterable[Number]) -> Clock:
        """Reads one row of `clock_table`, (8,), or of its transpose, (8, N) for the clocks of N steps."""
        return cls(*row)

    def windows(self) -> tuple[Number, Number, Number]:
        """Returns the lengths of the fast, middle and slow averages, steps.

        It is no property, which torch.compile does not trace in a named tuple before torch 2.11.
        """
        return self.fast_window, self.middle_window, self.slow_window


def span(step: int, total_steps: float | None) -> float:
    """Gives the time scale of step t in steps: min(T, 2 (t + 50)).

    Averages and bounds scale with the span. While a run is younger than its horizon they follow its age, so that
    an early instability of a long run is seen and answered in time; after that a run of 200 steps and one of
    200,000 look alike. A run without a horizon is always "half way" through its span.
    """
    age = 2.0 * (step + 50)
    return age if total_steps is None else min(float(total_steps), age)


def clock_at(xp: Backend, step: Number, total_steps: Number | None) -> Clock:
    """Computes the clock of step t of T.

    The reference schedule is a cosine from 1 to `REFERENCE_FLOOR`, or 1 in the anytime mode. s rises or
    falls by 40 / max(span, 100) nats at most. In the first few steps it may fall by 3 exp(-t/2) more, which lets a rate
    that is too high by four decades be corrected before it does harm, and rise by 3 exp(-t) more: the second and third
    steps are taken before the loss has told what the first one did.

    Args:
        xp: backend of the numbers.
        step: t, optimizer steps taken before this one.
        total_steps: T; None in the anytime mode.
    """
    scale = 2.0 * (step + 50.0)  # the span
    progress = log_reference = 0.0 * step
    if total_steps is not None:
        scale = xp.minimum(total_steps, scale)
        fraction = xp.clip(step / total_steps, 0.0, 1.0)
        progress = 2.0 * fraction - 1.0
        cosine = 0.5 * (1.0 + xp.cos(math.pi * fraction))
        log_reference = xp.log(REFERENCE_FLOOR + (1.0 - REFERENCE_FLOOR) * cosine)
    early = xp.exp(-step / 10.0)
    steady = 40.0 / xp.clip(scale, 100.0)
    rise_bound = steady + 3.0 * xp.exp(-step)
    fall_bound = steady + 3.0 * xp.exp(-step / 2.0)
    windows = [xp.clip(share * scale, least) for share, least in zip(WINDOW_SHARES, MIN_WINDOWS, strict=True)]
    return Clock(progress, early, log_reference, rise_bound, fall_bound, *windows)


def clock_row(step: int, total_steps: float | None) -> list[float]:
    """Gives the eight numbers of step t's `Clock`."""
    horizon = None if total_steps is None else float(total_steps)
    return [float(part) for part in clock_at(HOST, float(step), horizon)]


def log_reference(step: int, total_steps: float | None) -> float:
    """Gives the logarithm of the reference schedule; see `clock_at`."""
    return float(Clock(*clock_row(step, total_steps)).log_reference)


def bounds(step: int, total_steps: float | None) -> tuple[float, float]:
    """Gives the largest rise and the largest fall of s at step t, nats; see `clock_at`."""
    now = Clock(*clock_row(step, total_steps))
    return float(now.rise_bound), float(now.fall_bound)


def clock(step: int, total_steps: float | None, device: torch.device | str | None = None) -> Clock:
    """Makes the clock of one step.

    Args:
        step: t, optimizer steps taken before this one.
        total_steps: horizon T in steps, or None in the anytime mode.
        device: where the tensors go.
    """
    return Clock.from_row(torch.tensor(clock_row(step, total_steps), dtype=torch.float32, device=device))


def clock_table(total_steps: int, anytime: bool = False, device: torch.device | str | None = None) -> Tensor:
    """Makes the clocks of all steps of a run, shape (T, 8); `anytime` for the anytime mode."""
    horizon = None if anytime else total_steps
    rows = [clock_row(step, horizon) for step in range(total_steps)]
    return torch.tensor(rows, dtype=torch.float32, device=device)


def advance(xp: Backend, log_multiplier: Number, action: Number, clock: Clock, finite: Mask) -> Number:
    """Takes one step of the log multiplier.

    Args:
        xp: backend of the numbers.
        log_multiplier: s_{t-1}, nats, shape (R,).
        action: the policy's output, shape (R,), unbounded.
        clock: the step's clock.
        finite: where loss and gradient are finite, bool, shape (R,). Elsewhere, and where the action is not finite,
            the policy is not asked, and the rate is halved.

    Returns:
        s_t, nats, shape (R,), always finite and within `MAX_LOG_MULTIPLIER`.
    """
    asked = finite & xp.isfinite(action)
    bound = xp.where(action > 0.0, clock.rise_bound, clock.fall_bound)
    change = xp.where(asked, bound * xp.tanh(action), -NON_FINITE_CUT)
    return xp.clip(log_multiplier + change, -MAX_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER)


def lr_factor(xp: Backend, log_multiplier: Number, clock: Clock) -> Number:
    """Gives the factor of the initial rates, ref(t/T) exp(s_t), shape (R,)."""
    return xp.exp(clock.log_reference + log_multiplier)
