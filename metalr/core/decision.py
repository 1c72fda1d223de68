"""The decision of one step: signals -> features -> policy -> law -> guards, and all that is remembered for it.

Where every rate is a tensor on the parameters' device, the decision is taken there in torch, and the host never waits
for the device. Where a rate is a Python float, its value has to come to the host anyway: then what was measured does,
and the decision is taken there, in Python numbers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.backend import Array, namespace, to_host, to_tensor, to_vector
from metalr.core.features import FEATURES, FeatureState, observe
from metalr.core.guards import Guards, GuardState, Proposal, protect
from metalr.core.policy import LRPolicy, apply_layers
from metalr.core.signals import Signals
from metalr.core.support import Support
from metalr.core.update_rule import Clock, advance, clock_row


class Decider:
    """Takes the decisions of one run.

    Args:
        policy: whose weights are copied as they are now.
        guards: settings.
        device: where decisions are taken in torch; None for the host.

    Attributes:
        log_multiplier: s_t, nats, shape (1,).
        change: s_t - s_{t-1}, nats, shape (1,).
        features: of the last decision, (1, F); None before the first.
        finite: whether its loss and gradient were, bool, (1,); None before the first.
        acted: which guards acted on it, bool, (4, 1); None before the first.
    """

    def __init__(self, policy: LRPolicy, guards: Guards, device: torch.device | None) -> None:
        self.guards = guards
        self.device = device
        self._layers = [(self._fixed(weight), self._fixed(bias)) for weight, bias in policy.shared_layers()]
        watched = guards.out_of_distribution and policy.support.is_bounded
        self._support = Support(*map(self._fixed, policy.support)) if watched else None
        self._columns = None if policy.features == FEATURES else self._fixed(policy.columns)
        self._feature_state = FeatureState(*map(self._own, FeatureState.empty(1)))
        self._watch = GuardState(*map(self._own, GuardState.empty(1)))
        self.log_multiplier = self._own(torch.zeros(1))
        self.change = self._own(torch.zeros(1))
        self.features: Array | None = None
        self.finite: Array | None = None
        self.acted: Array | None = None

    def _own(self, tensor: Tensor) -> Array:
        """A copy of what is of one run, in the kind of array and at the place that decisions are taken in."""
        if self.device is None:
            return to_host(tensor)
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return tensor.detach().to(self.device, kind, copy=True)

    def _fixed(self, tensor: Tensor) -> Array:
        """The same of what has no run dimension."""
        return to_vector(tensor) if self.device is None else tensor.detach().to(self.device, copy=True)

    def decide(self, signals: Signals, step: int, total_steps: int | None) -> Array:
        """Moves s by one step.

        Args:
            signals: of this step, each of shape (1,) on the device, or floats for the host.
            step: t.
            total_steps: T.

        Returns:
            The factor of the initial rates, ref(t/T) exp(s_t), shape (1,), or a float.
        """
        row = clock_row(step, total_steps)
        if self.device is None:
            return self._decide(signals, Clock.from_row(row))
        with torch.autocast(self.device.type, enabled=False):
            return self._decide(signals, Clock.from_row(_sent(row, self.device)))

    def _decide(self, signals: Signals, now: Clock) -> Array:
        xp = namespace(self.log_multiplier)
        self._feature_state, self.features, self.finite = observe(
            self._feature_state, signals, self.log_multiplier, now
        )
        read = self.features if self._columns is None else self.features[..., self._columns]
        output = apply_layers(self._layers, read)
        after = advance(self.log_multiplier, output, now, self.finite)
        asked = self.finite & xp.isfinite(output)
        strange = None if self._support is None else self._support.out_of_distribution_score(read)
        step = Proposal(signals.loss, self.log_multiplier, after, self.finite, asked, strange)
        self._watch, guarded, self.acted = protect(self.guards, self._watch, self._feature_state, now, step)
        self.change = guarded - self.log_multiplier
        self.log_multiplier = guarded
        return xp.exp(now.log_reference + guarded)

    @property
    def any_acted(self) -> bool:
        """Whether a guard acted on the last decision; waits for the device."""
        return self.acted is not None and any(self.acted)

    @property
    def memory(self) -> FeatureState:
        """What the features remember, as tensors."""
        return FeatureState(*map(to_tensor, self._feature_state))

    @property
    def counts(self) -> list[int]:
        """Actions of each guard so far, in the order of `GUARDS`; waits for the device."""
        counts: list[int] = to_tensor(self._watch.counts)[:, 0].tolist()
        return counts

    @property
    def tally(self) -> Array:
        """The same where it lies, (len(GUARDS), 1)."""
        return self._watch.counts

    def state_dict(self) -> dict[str, Any]:
        """Tensors of all that a resumed run needs."""
        return {
            "log_multiplier": to_tensor(self.log_multiplier).clone(),
            "memory": {name: to_tensor(part).clone() for name, part in self._feature_state._asdict().items()},
            "watch": {name: to_tensor(part).clone() for name, part in self._watch._asdict().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on whichever device it was written."""
        self.log_multiplier = self._own(state["log_multiplier"])
        self._feature_state = FeatureState(**{name: self._own(part) for name, part in state["memory"].items()})
        self._watch = GuardState(**{name: self._own(part) for name, part in state["watch"].items()})
        self.features = self.finite = self.acted = None


def _sent(row: list[float], device: torch.device) -> Tensor:
    """A row of numbers on a device, without waiting for it."""
    tensor = torch.tensor(row, dtype=torch.float32)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def device_of_rates(optimizer: Optimizer) -> torch.device | None:
    """The parameters' device where every rate is a tensor on it, else None: the host."""
    device: torch.device = next(p for group in optimizer.param_groups for p in group["params"]).device
    rates = [group["lr"] for group in optimizer.param_groups]
    return device if all(isinstance(lr, Tensor) and lr.device == device for lr in rates) else None
