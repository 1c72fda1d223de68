"""The decisions of one real run: the kernel, the guards behind it, and all that is remembered from step to step.

Where every rate is a tensor on the parameters' device, decisions are taken there in torch, and the host never waits
for the device. All that is remembered then keeps its place in the device's memory, the number of the step included, so
that a CUDA graph of a step takes the next decision at each replay. Where a rate is a Python float, its value has to
come to the host anyway: then what was measured does, and the decision is taken there, in Python numbers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.backend import HOST, TORCH, Backend, Mask, Number, Vector, to_host, to_tensor
from metalr.core.decision import decide
from metalr.core.device_clock import DeviceClock
from metalr.core.features import FEATURES, FeatureState
from metalr.core.fusion import fused
from metalr.core.guards import GUARDS, GuardInterventions, Guards, GuardState, Proposal, protect
from metalr.core.lr_limits import UNLIMITED, LogBounds
from metalr.core.policy import LRPolicy
from metalr.core.signals import Reading, Signals
from metalr.core.update_rule import Clock, clock_row, lr_factor

Own = TypeVar("Own")

_AT_BEST = 0.5
"""Noises by which the fast average of a loss at its best may stand above it."""


class RunSnapshot(NamedTuple):
    """Holds the states of features and guards at the step at which the weights were copied."""

    features: FeatureState
    guards: GuardState

    def fell_below(self, other: RunSnapshot, noises: float) -> bool:
        """Tests whether the loss was lower than in another, by some noises of it; waits for the device."""
        (now, _, _), (then, _, _) = (snapshot.features.windows(TORCH) for snapshot in (self, other))
        return bool(now.loss < then.loss - noises * self.guards.noise)


class DecisionState(NamedTuple):
    """Holds the state that the next decision needs.

    Attributes:
        features: their state.
        guards: their state.
        log_multiplier: s_t, nats, (1,).
        validation: loss that waits for the next decision, NaN for none, (1,); None for a policy that reads none.
    """

    features: FeatureState
    guards: GuardState
    log_multiplier: Number
    validation: Number | None


class Outcome(NamedTuple):
    """Holds the results of a decision that can be read after it.

    Attributes:
        factor: of the initial rates, ref(t/T) exp(s_t), (1,).
        change: s_t - s_{t-1} after the guards, nats, (1,).
        features: all of them, (1, len(FEATURES)).
        finite: whether loss and gradient were, bool, (1,).
        interventions: which guards acted.
    """

    factor: Number
    change: Number
    features: Vector
    finite: Mask
    interventions: GuardInterventions


class Decider:
    """Takes the decisions of one run.

    Args:
        policy: whose weights are copied as they are now.
        guards: settings.
        device: where decisions are taken in torch; None for the host.
        total_steps: T; None in the anytime mode.
        steps_per_epoch: optimizer steps of one pass over the training data; None where that is unknown.
        fuse: make few kernels of a decision on a device; None for wherever that is possible.

    Attributes:
        clock: of the device; None on the host.
    """

    def __init__(
        self,
        policy: LRPolicy,
        guards: Guards,
        device: torch.device | None,
        total_steps: int | None = None,
        steps_per_epoch: float | None = None,
        fuse: bool | None = None,
    ) -> None:
        self.guards = guards
        self.device = device
        self._policy = policy.frozen_function(device)
        is_guarded = guards.out_of_distribution and policy.support.is_bounded
        self._region = policy.support.region(device) if is_guarded else None
        self._state = DecisionState(
            FeatureState(**self._own_parts(FeatureState.empty(1)._asdict())),
            GuardState(**self._own_parts(GuardState.empty(1)._asdict())),
            self._own(cast(Number, torch.zeros(1))),
            self._own(_nothing_waits()) if policy.reads_validation else None,
        )
        # It never changes during a run, so that it is no part of the state.
        epoch = cast(Number, torch.full((1,), steps_per_epoch or 0.0))
        self._steps_per_epoch = self._own(epoch) if policy.reads_epochs else None
        self._outcome: Outcome | None = None
        self.clock = None if device is None else DeviceClock(device, total_steps)
        self._place = None if device is None else _empty_outcome(device)
        self._step_on_device = fused(self._decide_in_place, device, fuse) if device else self._decide_in_place

    def _own(self, part: Own) -> Own:
        """Copies a tensor of one run to where decisions are taken, as the values of their backend."""
        tensor = to_tensor(part)
        if self.device is None:
            return cast(Own, to_host(tensor))
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return cast(Own, tensor.detach().to(self.device, kind, copy=True))

    def _own_parts(self, parts: dict[str, Any]) -> dict[str, Any]:
        return {name: self._own(part) for name, part in parts.items()}

    def take_validation(self, loss: Tensor | float) -> None:
        """Keeps a validation loss, a scalar, for the next decision on a finite step: on a device, where graphs read it.

        One that is not finite changes nothing. It waits for no device but the loss's own, where decisions are taken on
        another.
        """
        waiting = self._state.validation
        if waiting is None:
            return
        if self.device is not None and isinstance(loss, Tensor) and loss.device == self.device:
            place = to_tensor(waiting)
            place.copy_(torch.where(loss.isfinite(), loss, place.squeeze()).reshape(1))
        elif math.isfinite(value := float(loss)):
            if self.device is None:
                self._state = self._state._replace(validation=cast(Number, value))
            else:
                to_tensor(waiting).fill_(value)

    def decide(self, reading: Reading, step: int, total_steps: int | None, bounds: LogBounds = UNLIMITED) -> Number:
        """Moves s by one step.

        Args:
            reading: of this step.
            step: t; a device counts by itself.
            total_steps: T; None in the anytime mode. A device has its own.
            bounds: of the log of the factor.

        Returns:
            The factor of the initial rates, ref(t/T) exp(s_t), shape (1,), or a float.
        """
        if self.device is None:
            clock = Clock.from_row(clock_row(step, total_steps))
            self._state, self._outcome = self._take(HOST, reading.signals(HOST), clock, bounds)
            return self._outcome.factor
        self._outcome = self._place
        return self.decide_in_graph(reading, bounds)

    def decide_in_graph(self, reading: Reading, bounds: LogBounds) -> Number:
        """Moves s by one step on a device, in place: nothing is left for the host to do."""
        assert self.device is not None
        assert self._place is not None
        with torch.autocast(self.device.type, enabled=False):
            self._step_on_device(reading, bounds)
        return self._place.factor

    def _decide_in_place(self, reading: Reading, bounds: LogBounds) -> None:
        assert self.clock is not None
        state, outcome = self._take(TORCH, reading.signals(TORCH), self.clock.now(), bounds)
        torch._foreach_copy_(_leaves(self._state), _leaves(state))
        torch._foreach_copy_(_leaves(self._place), _leaves(outcome))
        self.clock.step.add_(1)

    def _take(self, xp: Backend, signals: Signals, clock: Clock, bounds: LogBounds) -> tuple[DecisionState, Outcome]:
        features, guards, before, validation = self._state
        signals = signals._replace(validation=validation, steps_per_epoch=self._steps_per_epoch)
        made = decide(xp, self._policy, features, before, signals, clock)
        if validation is not None:
            validation = xp.where(xp.logical_not(made.finite), validation, math.nan)
        asked = made.finite & xp.isfinite(made.action)
        score = None if self._region is None else self._region.out_of_distribution_score(xp, made.read)
        proposal = Proposal(
            loss=signals.loss,
            before=before,
            after=made.log_multiplier,
            finite=made.finite,
            asked=asked,
            score=score,
            bounds=bounds,
        )
        guarded = protect(xp, self.guards, guards, made.feature_state, clock, proposal)
        after = guarded.log_multiplier
        factor = lr_factor(xp, after, clock)
        outcome = Outcome(factor, after - before, made.features, made.finite, guarded.interventions)
        return DecisionState(made.feature_state, guarded.state, after, validation), outcome

    def is_in_graph(self) -> bool:
        """Tests whether this call is being compiled, or captured in a CUDA graph, where it can be."""
        if self.device is None:
            return False
        if torch.compiler.is_compiling():
            return True
        return self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def steps(self) -> int:
        """Counts the decisions taken on a device; waits for it."""
        assert self.clock is not None
        return int(self.clock.step)

    def set_horizon(self, total_steps: int | None) -> None:
        """Moves the horizon of a device's clock."""
        if self.clock is not None:
            self.clock.set_horizon(total_steps)

    def mark_decided(self) -> None:
        """Notes that decisions are taken by a graph."""
        self._outcome = self._place

    @property
    def log_multiplier(self) -> Number:
        """s_t, nats, (1,)."""
        return self._state.log_multiplier

    @property
    def change(self) -> Number:
        """s_t - s_{t-1} after the guards, nats, (1,); 0 before the first decision."""
        return cast(Number, 0.0) if self._outcome is None else self._outcome.change

    @property
    def features(self) -> Vector | None:
        """All features of the last decision, (1, len(FEATURES)); None before the first."""
        return None if self._outcome is None else self._outcome.features

    @property
    def finite(self) -> Mask | None:
        """Whether its loss and gradient were, bool, (1,); None before the first."""
        return None if self._outcome is None else self._outcome.finite

    @property
    def interventions(self) -> GuardInterventions | None:
        """Which guards acted on it; None before the first."""
        return None if self._outcome is None else self._outcome.interventions

    @property
    def any_acted(self) -> bool:
        """Whether a guard acted on the last decision; waits for the device."""
        return self.interventions is not None and any(self.interventions)

    @property
    def has_collapsed(self) -> bool:
        """Whether the last decision saw a collapse; waits for the device."""
        return self.interventions is not None and bool(self.interventions.collapse)

    @property
    def stands_at_best(self) -> bool:
        """Whether the loss stands at its recent best and the run does not look collapsed; waits for the device."""
        fast, guards = self.feature_state.windows(TORCH)[0], self._state.guards
        near = float(fast.loss) <= float(guards.low) + _AT_BEST * float(guards.noise)
        return near and float(guards.stayed) == 0.0 and self.finite is not None and bool(self.finite)

    def take_snapshot(self) -> RunSnapshot:
        """Copies the states of features and guards, as tensors."""
        state = self._state
        return RunSnapshot(FeatureState(**_copies(state.features)), GuardState(**_copies(state.guards)))

    def restore(self, snapshot: RunSnapshot) -> None:
        """Restores a snapshot, except for the rate and the effects of the guards.

        A pending validation loss belongs to the discarded weights, and is dropped.
        """
        now, is_read = self._state.guards, self._state.validation is not None
        features = FeatureState(**self._own_parts(snapshot.features._asdict()))
        guards = GuardState(**self._own_parts(snapshot.guards._asdict()))
        guards = guards._replace(counts=now.counts, ceiling=now.ceiling, rest=now.rest)
        waiting = self._own(_nothing_waits()) if is_read else None
        self._remember(DecisionState(features, guards, self._state.log_multiplier, waiting))

    def _remember(self, state: DecisionState) -> None:
        """Takes a state in the place of what is remembered; on a device where that lies, since graphs write there."""
        if self.device is None:
            self._state = state
        else:
            torch._foreach_copy_(_leaves(self._state), _leaves(state))

    @property
    def feature_state(self) -> FeatureState:
        """What the features remember, as tensors."""
        return FeatureState(*map(to_tensor, self._state.features))

    @property
    def counts(self) -> list[int]:
        """Interventions of each guard so far, in the order of `GUARDS`; waits for the device."""
        counts: list[int] = self.counts_in_place()[:, 0].tolist()
        return counts

    def counts_in_place(self) -> Tensor:
        """Gives the same where it lies, (len(GUARDS), 1), without waiting."""
        return to_tensor(self._state.guards.counts)

    def state_dict(self) -> dict[str, Any]:
        """Gives tensors of all that a resumed run needs."""
        features, guards, log_multiplier, validation = self._state
        waiting = {} if validation is None else {"validation": to_tensor(validation).clone()}
        return {
            **waiting,
            "log_multiplier": to_tensor(log_multiplier).clone(),
            "feature_state": _copies(features),
            "guard_state": _copies(guards),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on whichever device it was written."""
        features = FeatureState(**{**FeatureState.empty(1)._asdict(), **state["feature_state"]})
        reads = self._state.validation is not None
        stored = DecisionState(
            FeatureState(**self._own_parts(features._asdict())),
            GuardState(**self._own_parts(_completed(state["guard_state"], features))),
            self._own(state["log_multiplier"]),
            self._own(state.get("validation", _nothing_waits())) if reads else None,
        )
        self._remember(stored)
        if self.clock is not None:
            self.clock.set_step(int(state["step"]))
        self._outcome = None

    def placed(self, factor: float) -> Number:
        """Puts a factor that was stored where graphs write it."""
        return factor if self._place is None else self._place.factor.fill_(factor)  # type: ignore[attr-defined]


def _copies(state: FeatureState | GuardState) -> dict[str, Tensor]:
    """Copies the parts of a state by name, as tensors."""
    return {name: to_tensor(part).clone() for name, part in state._asdict().items()}


def _leaves(parts: object) -> list[Tensor]:
    """Lists the tensors of nested tuples, in which None stands for none."""
    if isinstance(parts, Tensor):
        return [parts]
    return [leaf for part in parts for leaf in _leaves(part)] if isinstance(parts, tuple) else []


def _nothing_waits() -> Number:
    return cast(Number, torch.full((1,), math.nan))


def _empty_outcome(device: torch.device) -> Outcome:
    """Allocates the output buffers of a device decision; they must not alias."""

    def numbers(*shape: int) -> Tensor:
        return torch.zeros(1, *shape, device=device)

    def mask() -> Tensor:
        return torch.zeros(1, dtype=torch.bool, device=device)

    return Outcome(numbers(), numbers(), numbers(len(FEATURES)), mask(), GuardInterventions(*(mask() for _ in GUARDS)))


def _completed(stored: dict[str, Tensor], features: FeatureState) -> dict[str, Tensor]:
    """Upgrades a stored guard state; version 6 has no collapse fields."""
    if "stayed" in stored:
        return dict(stored)
    counts = torch.zeros(len(GUARDS), 1, dtype=torch.int64)
    counts[: len(stored["counts"])] = stored["counts"]
    fast, _, _ = features.windows(TORCH)
    return {**GuardState.empty(1)._asdict(), **stored, "gradient": to_tensor(fast.log_grad_norm), "counts": counts}


def device_of_rates(optimizer: Optimizer) -> torch.device | None:
    """Gives the parameters' device where every rate is a tensor on it, else None: the host."""
    device: torch.device = next(p for group in optimizer.param_groups for p in group["params"]).device
    rates = [group["lr"] for group in optimizer.param_groups]
    return device if all(isinstance(lr, Tensor) and lr.device == device for lr in rates) else None
