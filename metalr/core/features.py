"""Signals of one training step -> the feature vector that the policy reads.

One implementation serves a real run and the batched inner runs of meta-training (R = thousands): see
`metalr.core.backend`. All features are dimensionless. In the loss they are invariant to a shift and to a positive
factor (so a loss may be zero, negative or cross zero); in the parameters to a common scale of parameters and updates.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from metalr.core.backend import Backend, Mask, Number, Stack, Vector
from metalr.core.signals import Signals
from metalr.core.update_rule import WINDOW_SHARES, Clock
from metalr.core.validation_loss import VALIDATION_FEATURES, Validation, read, remember

SCHEMA_VERSION = 4
"""Counts up whenever a feature is added or its meaning changes; a policy file of a newer one is refused."""

OLDEST_SCHEMA = 1
"""The oldest version whose features all mean what they mean now; a policy file of an older one is refused."""

CLIP = 3.0
"""Features lie in [-CLIP, CLIP]."""

_TINY = 1e-30

HORIZON_FEATURES = ("progress", "step_size_reference")
"""Features that exist only where the horizon is known."""

EPOCH_FEATURES = ("epochs", "epochs_known")
"""Features of how often the run goes over its training data. What computes them runs only where a policy reads one."""

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
    "travel",
    "distance_step",
    "distance_travel",
    "weight_structure",
    *EPOCH_FEATURES,
    *VALIDATION_FEATURES,
)
"""All features by name, in the order of `observe`'s vector. See `observe` for each one's form."""

ORIGIN_FEATURES = ("travel", "distance_step", "distance_travel", "weight_structure")
"""Features that need the parameters where the run began and the sum of its gradients: two copies of the sample."""

ANYTIME_FEATURES = tuple(name for name in FEATURES if name not in HORIZON_FEATURES)
"""Features that an anytime policy may read."""


class Averages(NamedTuple):
    """Holds running averages over one window, each of shape (R,).

    Attributes:
        loss: in its own unit.
        log_grad_norm: log |g|.
        alignment: cos(g, u).
        alignment_square: its square.
        log_multiplier: s, nats.
    """

    loss: Number
    log_grad_norm: Number
    alignment: Number
    alignment_square: Number
    log_multiplier: Number


class FirstStep(NamedTuple):
    """Holds what is kept of the first step, each of shape (R,).

    Attributes:
        log_param_norm: log |w|.
        log_grad_norm: log |g|.
        log_gain: log of the direction's gain.
    """

    log_param_norm: Number
    log_grad_norm: Number
    log_gain: Number


class FeatureState(NamedTuple):
    """Holds what the features remember of R runs: float32 tensors, or numbers of one run on the host.

    Attributes:
        seen: finite steps observed so far. Shape (R,).
        averages: fast, middle and slow `Averages`. Shape (3, 5, R).
        variance: middle average of (loss - its fast average)^2. Shape (R,).
        first_loss: loss of the first step. Shape (R,).
        best_loss: smallest fast average of the loss. Shape (R,).
        first_step: `FirstStep`. Shape (3, R).
        origin_sum: sum of `Signals.origin_product`. Shape (R,).
        distance: largest lower bound so far of the distance from w_0 to the solution. Shape (R,).
        validation: `metalr.core.validation_loss.Validation`. Shape (7, R).
    """

    seen: Number
    averages: Stack
    variance: Number
    first_loss: Number
    best_loss: Number
    first_step: Stack
    origin_sum: Number
    distance: Number
    validation: Stack

    @classmethod
    def empty(cls, runs: int, device: torch.device | str | None = None) -> FeatureState:
        """Makes the state of runs that have not started, of tensors."""

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, runs, device=device)

        return cls(
            seen=zeros(),
            averages=zeros(3, len(Averages._fields)),
            variance=zeros(),
            first_loss=zeros(),
            best_loss=zeros(),
            first_step=zeros(len(FirstStep._fields)),
            origin_sum=zeros(),
            distance=zeros(),
            validation=zeros(len(Validation._fields)),
        )

    def windows(self, xp: Backend) -> tuple[Averages, Averages, Averages]:
        """Names the fast, middle and slow averages."""
        fast, middle, slow = (Averages(*stack) for stack in xp.split(self.averages))
        return fast, middle, slow


class Observation(NamedTuple):
    """Holds what a step shows.

    Attributes:
        state: after this step; unchanged for runs whose signals are not finite.
        features: (R, len(FEATURES)), finite and in [-CLIP, CLIP].
        finite: where signals and averages were finite, bool, (R,).
    """

    state: FeatureState
    features: Vector
    finite: Mask


def _log(xp: Backend, value: Number) -> Number:
    return xp.log(xp.clip(value, _TINY))


def _is_finite(xp: Backend, signals: Signals) -> Mask:
    return xp.isfinite(signals.loss + signals.grad_norm + signals.param_norm + signals.update_norm + signals.alignment)


def _epochs(xp: Backend, steps_per_epoch: Number | None, clock: Clock, zero: Number) -> dict[str, Number]:
    """Reads `EPOCH_FEATURES`: a span is min(T, 2 (t + 50)) steps, of which the slow window is a fifth.

    In less than one epoch no sample is seen twice, however many more there are.
    """
    if steps_per_epoch is None:
        return dict.fromkeys(EPOCH_FEATURES, zero)
    known = steps_per_epoch > 0
    epochs = (_log(xp, clock.slow_window / WINDOW_SHARES[-1] + zero) - _log(xp, steps_per_epoch)) / math.log(10.0)
    return {"epochs": xp.where(known, xp.clip(epochs, 0.0), zero), "epochs_known": xp.where(known, 1.0 + zero, zero)}


def observe(xp: Backend, state: FeatureState, signals: Signals, log_multiplier: Number, clock: Clock) -> Observation:
    """Takes one step's signals into the state and reads the features.

    With averages <f>, <m>, <s> (fast, middle, slow: each a plain mean until its window is full, exponential
    from then on), l the loss, v its variance about <l>f, D = l_0 - min <l>f + sqrt(v) the depth of the descent,
    r = log(lr |u| / |w|) the relative size of an update, c = cos(g_t, u_{t-1}) the alignment, G = |u| / |g| for SGD and
    |u| for any other optimizer the gain of its direction, and s the log multiplier:

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
    travel                0.4 (log(|w - w_0| / |w|) + 5)
    distance_step         0.4 (log(lr |u| / d) + 3), d the largest lower bound of |w_0 - w*| so far
    distance_travel       0.5 log(|w - w_0| / d); both are 0 at the first step
    weight_structure      1.5 times the mean structure of the first weights: 0 for random ones
    epochs                log10 of the passes over the training data that the slow window's span has, 0 where there is
                          less than one or that is unknown; epochs_known: 1 where it is known, else 0
    validation_trend      asinh(10 (v - <v>s) / D), v the last validation loss, <v>s its average before that
    validation_rise       asinh(10 (v - min v) / D)
    validation_gap        asinh(3 (v - <l>f) / D), <l>f at the step of v
    validation_recency    2 / (1 + 2 a / slow window), a the steps since v; all four are 0 as long as there is no v
    ====================  =================================================================

    Args:
        xp: backend of the numbers.
        state: before this step.
        signals: of this step, each of shape (R,).
        log_multiplier: s_{t-1}, nats, shape (R,).
        clock: of this step.
    """
    start = xp.equal(state.seen, 0.0)
    log_grad, log_param = _log(xp, signals.grad_norm), _log(xp, signals.param_norm)
    raw_update = _log(xp, signals.update_norm)
    gain = xp.where(signals.optimizer > 0, raw_update - log_grad, raw_update)
    new = Averages(signals.loss, log_grad, signals.alignment, xp.square(signals.alignment), log_multiplier)
    weights = [1.0 / xp.minimum(state.seen + 1.0, window) for window in clock.windows()]
    moved = state._replace(averages=xp.approach(state.averages, xp.stack(new), xp.stack(weights)))
    fast, middle, slow = moved.windows(xp)
    variance = state.variance + weights[1] * (xp.square(signals.loss - fast.loss) - state.variance)
    first_loss = xp.where(start, signals.loss, state.first_loss)
    best_loss = xp.where(start, fast.loss, xp.minimum(state.best_loss, fast.loss))
    first_step = xp.choose_stack(start, xp.stack(FirstStep(log_param, log_grad, gain)), state.first_step)
    first = FirstStep(*first_step)

    validation = state.validation
    if signals.validation is not None:
        validation = remember(xp, validation, signals.validation, fast.loss, clock.slow_window)
    origin_sum = state.origin_sum + signals.origin_product
    distance = xp.maximum(state.distance, origin_sum * signals.distance_scale)

    noise = xp.sqrt(variance) + _TINY
    depth = first_loss - best_loss + noise
    rise = fast.loss - best_loss
    log_update = raw_update + log_multiplier
    relative = log_update - log_param
    log_noise = xp.log(noise)
    zero = 0.0 * state.seen
    log_travel, log_distance = _log(xp, signals.travel), _log(xp, distance)
    named = {
        "progress": clock.progress + zero,
        "early": clock.early + zero,
        "step_size": 0.4 * (relative + clock.log_reference + 6.0),
        "step_size_reference": 0.4 * (relative + 6.0),
        "alignment_fast": 3.0 * fast.alignment,
        "alignment_middle": 4.0 * middle.alignment,
        "alignment_certainty": 3.0 * middle.alignment / xp.sqrt(middle.alignment_square + _TINY),
        "direction_gain": gain - first.log_gain,
        "loss_trend_fast": xp.arcsinh((fast.loss - middle.loss) / noise),
        "loss_trend_slow": xp.arcsinh((middle.loss - slow.loss) / noise),
        "loss_rise_noise": xp.arcsinh(rise / noise),
        "loss_rise_depth": 2.0 * rise / depth,
        "loss_noise": 0.4 * (log_noise - xp.log(depth)),
        "predicted_change": 0.25 * (log_update + clock.log_reference + log_grad - log_noise),
        "gradient_trend": fast.log_grad_norm - slow.log_grad_norm,
        "gradient_spike": log_grad - middle.log_grad_norm,
        "gradient_decay": 0.5 * (fast.log_grad_norm - first.log_grad_norm),
        "parameter_growth": log_param - first.log_param_norm,
        "rate_trend": log_multiplier - slow.log_multiplier,
        "optimizer": signals.optimizer + zero,
        "travel": 0.4 * (log_travel - log_param + 5.0),
        "distance_step": xp.where(start, zero, 0.4 * (log_update + clock.log_reference - log_distance + 3.0)),
        "distance_travel": xp.where(start, zero, 0.5 * (log_travel - log_distance)),
        "weight_structure": 1.5 * signals.weight_structure + zero,
    }
    named |= _epochs(xp, signals.steps_per_epoch, clock, zero)
    if signals.validation is None:
        named |= dict.fromkeys(VALIDATION_FEATURES, zero)
    else:
        named |= read(xp, validation, depth, clock.slow_window)
    features = xp.vector([named[name] for name in FEATURES], -CLIP, CLIP)

    # A loss of 1e20 is finite, and its square is not: what would poison the state is left out of it.
    bounded = xp.has_no_nan(features) & xp.isfinite(variance + xp.total(moved.averages))
    finite = _is_finite(xp, signals) & bounded
    after = FeatureState(
        seen=state.seen + 1.0,
        averages=moved.averages,
        variance=variance,
        first_loss=first_loss,
        best_loss=best_loss,
        first_step=first_step,
        origin_sum=origin_sum,
        distance=distance,
        validation=validation,
    )
    return Observation(xp.choose(finite, after, state), xp.masked(finite, features), finite)
