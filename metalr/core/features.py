"""Signals of one training step -> the feature vector that the policy reads.

One implementation serves a real run and the batched inner runs of meta-training (R = thousands): see
`metalr.core.backend`. All features are dimensionless. In the loss they are
invariant to a shift and to a positive factor (so a loss may be zero, negative or cross zero); in the parameters to a
common scale of parameters and updates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from metalr.core.backend import Array, approach, columns, is_known, masked, namespace, stack, total
from metalr.core.signals import Signals
from metalr.core.update_rule import Clock

SCHEMA_VERSION = 2
"""Counts up whenever a feature is added or its meaning changes; a policy file of a newer one is refused."""

OLDEST_SCHEMA = 1
"""The oldest version whose features all mean what they mean now; a policy file of an older one is refused."""

CLIP = 3.0
"""Features lie in [-CLIP, CLIP]."""

_TINY = 1e-30

HORIZON_FEATURES = ("progress", "step_size_reference")
"""Features that exist only where the horizon is known."""

FEATURES = (
    "progress",
    "early",
    "step_size",
    "step_size_reference",
    "alignment_fast",
    "alignment_middle",
    "alignment_certainty",
    "direction_gain",
    "loss_trend_fast",
    "loss_trend_slow",
    "loss_rise_noise",
    "loss_rise_depth",
    "loss_noise",
    "predicted_change",
    "gradient_trend",
    "gradient_spike",
    "gradient_decay",
    "parameter_growth",
    "rate_trend",
    "optimizer",
)
"""All features by name, in the order of `observe`'s output. See `observe` for each one's form."""

ANYTIME_FEATURES = tuple(name for name in FEATURES if name not in HORIZON_FEATURES)


class FeatureState(NamedTuple):
    """What the features remember of a run: float32 arrays, R runs.

    Attributes:
        seen: finite steps observed so far. Shape (R,).
        averages: fast, middle and slow averages of (loss, log gradient norm, alignment, its square, s). Shape
            (3, 5, R).
        variance: middle average of (loss - its fast average)^2. Shape (R,).
        first_loss: loss of the first step. Shape (R,).
        best_loss: smallest fast average of the loss. Shape (R,).
        first_logs: log parameter norm, log gradient norm and log direction gain at the first step. Shape (3, R).
    """

    seen: Array
    averages: Array
    variance: Array
    first_loss: Array
    best_loss: Array
    first_logs: Array

    @classmethod
    def empty(cls, runs: int, device: torch.device | str | None = None) -> FeatureState:
        """The memory of runs that have not started."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, runs, device=device)

        return cls(zeros(), zeros(3, 5), zeros(), zeros(), zeros(), zeros(3))


def _log(value: Array) -> Array:
    xp = namespace(value)
    return xp.log(xp.clip(value, _TINY))


def _finite(signals: Signals) -> Array:
    total = signals.loss + signals.grad_norm + signals.param_norm + signals.update_norm + signals.alignment
    return namespace(total).isfinite(total)


def observe(
    memory: FeatureState, signals: Signals, log_multiplier: Array, clock: Clock
) -> tuple[FeatureState, Array, Array]:
    """Takes one step's signals into the memory and reads the features.

    With averages <f>, <m>, <s> (fast, middle, slow: each a plain mean until its window is full, exponential
    from then on), l the loss, v its variance about <l>f, D = l_0 - min <l>f + sqrt(v) the depth of the descent,
    r = log(lr |u| / |w|) the relative size of an update, c = cos(g_t, u_{t-1}) the alignment, G = |u| / |g| for SGD and
    |u| for any other optimizer the gain of its direction, and s the law's log_multiplier:

    ====================  =================================================================
    progress, early       2t/T - 1; exp(-t/10)
    step_size             0.4 (r + 6); step_size_reference: the same without log ref
    alignment_fast/middle 3 <c>f; 4 <c>m
    alignment_certainty   3 <c>m / sqrt <c^2>m: its sign and how sure it is, whatever the number of parameters
    direction_gain        log G_t / G_0: how far gradients of successive steps agree, which a momentum sums up
    loss_trend_fast/slow  asinh((<l>f - <l>m) / sqrt v); asinh((<l>m - <l>s) / sqrt v)
    loss_rise_noise/depth asinh((<l>f - min <l>f) / sqrt v); 2 (<l>f - min <l>f) / D
    loss_noise            0.4 log(sqrt v / D)
    predicted_change      0.25 log(lr |u| |g| / sqrt v)
    gradient_trend/spike  <log|g|>f - <log|g|>s; log|g| - <log|g|>m
    gradient_decay        0.5 (<log|g|>f - log|g_0|)
    parameter_growth      log |w| / |w_0|
    rate_trend            s - <s>s
    optimizer             +1 for SGD, -1 otherwise
    ====================  =================================================================

    Args:
        memory: before this step.
        signals: of this step, each of shape (R,).
        log_multiplier: s_{t-1}, nats, shape (R,).
        clock: of this step.

    Returns:
        The memory after this step (unchanged for runs whose signals are not finite), the features, shape
        (R, len(FEATURES)), finite and in [-CLIP, CLIP], and where signals and averages were finite, bool, shape (R,).
    """
    xp = namespace(log_multiplier)
    start = memory.seen == 0
    log_grad, log_param = _log(signals.grad_norm), _log(signals.param_norm)
    raw_update = _log(signals.update_norm)
    gain = xp.where(signals.optimizer > 0, raw_update - log_grad, raw_update)
    quantities = stack((signals.loss, log_grad, signals.alignment, xp.square(signals.alignment), log_multiplier))
    weights = stack(1.0 / xp.minimum(memory.seen + 1.0, window) for window in clock.windows)
    averages = approach(memory.averages, quantities, weights)
    fast, middle, slow = averages
    variance = memory.variance + weights[1] * (xp.square(signals.loss - fast[0]) - memory.variance)
    first_loss = xp.where(start, signals.loss, memory.first_loss)
    best_loss = xp.where(start, fast[0], xp.minimum(memory.best_loss, fast[0]))
    first_logs = xp.where(start, stack((log_param, log_grad, gain)), memory.first_logs)

    noise = xp.sqrt(variance) + _TINY
    depth = first_loss - best_loss + noise
    rise = fast[0] - best_loss
    log_update = raw_update + log_multiplier
    relative = log_update - log_param
    log_noise = xp.log(noise)
    zero = 0.0 * memory.seen
    features = columns(
        (
            clock.progress + zero,
            clock.early + zero,
            0.4 * (relative + clock.log_reference + 6.0),
            0.4 * (relative + 6.0),
            3.0 * fast[2],
            4.0 * middle[2],
            3.0 * middle[2] / xp.sqrt(middle[3] + _TINY),
            gain - first_logs[2],
            xp.arcsinh((fast[0] - middle[0]) / noise),
            xp.arcsinh((middle[0] - slow[0]) / noise),
            xp.arcsinh(rise / noise),
            2.0 * rise / depth,
            0.4 * (log_noise - xp.log(depth)),
            0.25 * (log_update + clock.log_reference + log_grad - log_noise),
            fast[1] - slow[1],
            log_grad - middle[1],
            0.5 * (fast[1] - first_logs[1]),
            log_param - first_logs[0],
            log_multiplier - slow[4],
            signals.optimizer + zero,
        )
    ).clip(-CLIP, CLIP)

    # A loss of 1e20 is finite, and its square is not: what would poison the memory is left out of it.
    whole = is_known(features) & xp.isfinite(variance + total(averages))
    finite = _finite(signals) & whole
    new = FeatureState(memory.seen + 1.0, averages, variance, first_loss, best_loss, first_logs)
    kept = FeatureState(*(xp.where(finite, after, before) for after, before in zip(new, memory, strict=True)))
    return kept, masked(finite, features), finite
