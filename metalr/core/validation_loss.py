"""The validation loss as an input: what R runs remember of it, and what the policy reads of that.

A validation loss comes now and then, or never. Where none has been given, everything here is 0, so that one policy
serves runs with and without.
"""

from __future__ import annotations

from typing import NamedTuple

from metalr.core.backend import Backend, Number, Stack

VALIDATION_FEATURES = ("validation_trend", "validation_rise", "validation_gap", "validation_recency")
"""Features of the validation loss. What computes them runs only where a policy reads one of them."""


class Validation(NamedTuple):
    """Holds what is remembered of the validation losses of R runs, each of shape (R,).

    Attributes:
        seen: 1 once there was one, else 0.
        age: steps since the last.
        average: running average over the slow window of steps, the last included.
        best: smallest so far.
        trend: the last one less the average before it; 0 for the first.
        rise: the last one less the best.
        gap: the last one less the fast average of the training loss at that step.
    """

    seen: Number
    age: Number
    average: Number
    best: Number
    trend: Number
    rise: Number
    gap: Number


def remember(xp: Backend, stack: Stack, loss: Number, training_loss: Number, slow_window: Number) -> Stack:
    """Takes one step into what is remembered.

    Args:
        xp: backend of the numbers.
        stack: `Validation` before this step, (7, R).
        loss: validation loss of the parameters that this step starts from, (R,); NaN where there is none, as where
            its square is not finite.
        training_loss: fast average of the training loss, (R,).
        slow_window: length of the slow averages, steps.

    Returns:
        `Validation` after this step, (7, R).
    """
    before = Validation(*stack)
    is_new, is_first = xp.isfinite(xp.square(loss)), xp.equal(before.seen, 0.0)
    loss = xp.where(is_new, loss, before.average)  # a NaN would spoil the derivatives of what is not chosen
    trend = xp.where(is_first, 0.0 * loss, loss - before.average)
    share = xp.clip((before.age + 1.0) / slow_window, 0.0, 1.0)
    best = xp.where(is_first, loss, xp.minimum(before.best, loss))
    after = Validation(
        seen=1.0 + 0.0 * before.seen,
        age=0.0 * before.age,
        average=xp.where(is_first, loss, before.average + share * trend),
        best=best,
        trend=trend,
        rise=loss - best,
        gap=loss - training_loss,
    )
    waiting = before._replace(age=before.age + before.seen)
    return xp.choose_stack(is_new, xp.stack(after), xp.stack(waiting))


def read(xp: Backend, stack: Stack, depth: Number, slow_window: Number) -> dict[str, Number]:
    """Reads `VALIDATION_FEATURES`, each of shape (R,).

    Args:
        xp: backend of the numbers.
        stack: `Validation`, (7, R).
        depth: of the training loss's descent, above 0, (R,).
        slow_window: length of the slow averages, steps.
    """
    now = Validation(*stack)
    return {
        "validation_trend": xp.arcsinh(10.0 * now.trend / depth),
        "validation_rise": xp.arcsinh(10.0 * now.rise / depth),
        "validation_gap": xp.arcsinh(3.0 * now.gap / depth),
        "validation_recency": 2.0 * now.seen / (1.0 + 2.0 * now.age / slow_window),
    }
