"""The decisions of one real run: the kernel, the guards behind it, and all that is remembered from step to step.

Where every rate is a tensor on the parameters' device, decisions are taken there in torch, and the host never waits
for the device. Where a rate is a Python float, its value has to come to the host anyway: then what was measured does,
and the decision is taken there, in Python numbers.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.backend import HOST, TORCH, Mask, Number, Vector, to_host, to_tensor
from metalr.core.decision import decide
from metalr.core.features import FeatureState
from metalr.core.guards import GuardActions, Guards, GuardState, Proposal, protect
from metalr.core.lr_limits import UNLIMITED, LogBounds
from metalr.core.policy import LRPolicy
from metalr.core.signals import Signals
from metalr.core.update_rule import Clock, clock_row, lr_factor

Own = TypeVar("Own")


class Decider:
    """Takes the decisions of one run.

    Args:
        policy: whose weights are copied as they are now.
        guards: settings.
        device: where decisions are taken in torch; None for the host.

    Attributes:
        log_multiplier: s_t, nats, (1,).
        change: s_t - s_{t-1} after the guards, nats, (1,).
        features: of the last decision, all of them, (1, len(FEATURES)); None before the first.
        finite: whether its loss and gradient were, bool, (1,); None before the first.
        actions: which guards acted on it; None before the first.
    """

    def __init__(self, policy: LRPolicy, guards: Guards, device: torch.device | None) -> None:
        self.guards = guards
        self.device = device
        self._xp = HOST if device is None else TORCH
        self._policy = policy.frozen_function(device)
        is_guarded = guards.out_of_distribution and policy.support.is_bounded
        self._region = policy.support.region(device) if is_guarded else None
        self._feature_state = FeatureState(**self._own_parts(FeatureState.empty(1)._asdict()))
        self._guard_state = GuardState(**self._own_parts(GuardState.empty(1)._asdict()))
        self.log_multiplier: Number = self._own(torch.zeros(1))
        self.change: Number = self._own(torch.zeros(1))
        # NaN where no validation loss waits for a decision, None where the policy reads none.
        self._validation: Number | None = self._own(torch.full((1,), math.nan)) if policy.reads_validation else None
        self.features: Vector | None = None
        self.finite: Mask | None = None
        self.actions: GuardActions | None = None

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
        """Keeps a validation loss, a scalar, for the next decision that is taken on a finite step."""
        if self._validation is None:
            return
        if isinstance(loss, Tensor) and loss.device == self.device:
            self._validation = self._own(cast(Number, loss.reshape(1)))
        else:
            value = float(loss)
            self._validation = cast(Number, value if self.device is None else _sent([value], self.device))

    def decide(self, signals: Signals, step: int, total_steps: int | None, bounds: LogBounds = UNLIMITED) -> Number:
        """Moves s by one step.

        Args:
            signals: of this step, each of shape (1,) on the device, or floats for the host.
            step: t.
            total_steps: T; None where it is unknown.
            bounds: of the log of the factor.

        Returns:
            The factor of the initial rates, ref(t/T) exp(s_t), shape (1,), or a float.
        """
        row = clock_row(step, total_steps)
        if self.device is None:
            return self._decide(signals, Clock.from_row(row), bounds)
        with torch.autocast(self.device.type, enabled=False):
            return self._decide(signals, Clock.from_row(_sent(row, self.device)), bounds)

    def _decide(self, signals: Signals, clock: Clock, bounds: LogBounds) -> Number:
        xp, before = self._xp, self.log_multiplier
        signals = signals._replace(validation=self._validation)
        made = decide(xp, self._policy, self._feature_state, before, signals, clock)
        if self._validation is not None:
            self._validation = xp.where(xp.logical_not(made.finite), self._validation, math.nan)
        asked = made.finite & xp.isfinite(made.action)
        score = None if self._region is None else self._region.out_of_distribution_score(xp, made.read)
        proposal = Proposal(signals.loss, before, made.log_multiplier, made.finite, asked, score, bounds)
        guarded = protect(xp, self.guards, self._guard_state, made.feature_state, clock, proposal)
        self._feature_state, self._guard_state = made.feature_state, guarded.state
        self.features, self.finite, self.actions = made.features, made.finite, guarded.actions
        self.log_multiplier = guarded.log_multiplier
        self.change = guarded.log_multiplier - before
        return lr_factor(xp, self.log_multiplier, clock)

    @property
    def any_acted(self) -> bool:
        """Whether a guard acted on the last decision; waits for the device."""
        return self.actions is not None and any(self.actions)

    @property
    def feature_state(self) -> FeatureState:
        """What the features remember, as tensors."""
        return FeatureState(*map(to_tensor, self._feature_state))

    @property
    def counts(self) -> list[int]:
        """Actions of each guard so far, in the order of `GUARDS`; waits for the device."""
        counts: list[int] = self.counts_in_place()[:, 0].tolist()
        return counts

    def counts_in_place(self) -> Tensor:
        """Gives the same where it lies, (len(GUARDS), 1), without waiting."""
        return to_tensor(self._guard_state.counts)

    def state_dict(self) -> dict[str, Any]:
        """Gives tensors of all that a resumed run needs."""
        waiting = {} if self._validation is None else {"validation": to_tensor(self._validation).clone()}
        return {
            **waiting,
            "log_multiplier": to_tensor(self.log_multiplier).clone(),
            "feature_state": {name: to_tensor(part).clone() for name, part in self._feature_state._asdict().items()},
            "guard_state": {name: to_tensor(part).clone() for name, part in self._guard_state._asdict().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on whichever device it was written."""
        self.log_multiplier = self._own(state["log_multiplier"])
        features = FeatureState.empty(1)._asdict() | state["feature_state"]  # version 6 has no validation loss
        self._feature_state = FeatureState(**self._own_parts(features))
        if self._validation is not None:
            self._validation = self._own(state.get("validation", torch.full((1,), math.nan)))
        self._guard_state = GuardState(**self._own_parts(state["guard_state"]))
        self.features = self.finite = self.actions = None


def _sent(row: list[float], device: torch.device) -> Tensor:
    """Sends a row of numbers to a device, without waiting for it."""
    tensor = torch.tensor(row, dtype=torch.float32)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def device_of_rates(optimizer: Optimizer) -> torch.device | None:
    """Gives the parameters' device where every rate is a tensor on it, else None: the host."""
    device: torch.device = next(p for group in optimizer.param_groups for p in group["params"]).device
    rates = [group["lr"] for group in optimizer.param_groups]
    return device if all(isinstance(lr, Tensor) and lr.device == device for lr in rates) else None
