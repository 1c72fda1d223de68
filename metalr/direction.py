"""The direction u that an optimizer applied last, for a unit rate: parameters moved by -lr * u.

For SGD with momentum and for Adam and AdamW it is read off the optimizer's state. SGD without momentum and Nesterov's
keep no such state: theirs follows from the gradient. For any other optimizer it is measured from the change of the
sampled parameters, of which one copy is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from metalr.sample import GroupSample, ParameterSample, mesh_of


class Direction(ABC):
    """Reads u of one parameter group at a time, on the elements of a sample.

    Attributes:
        is_sgd: whether an update is a gradient or a running sum of gradients, not normalised by its size.
    """

    is_sgd: bool = False

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    @abstractmethod
    def read(self, index: int, sample: GroupSample) -> Tensor | None:
        """Direction u on the sample of the index-th group, (n,); None where it has not been updated yet."""

    def remember(self, sample: ParameterSample) -> None:  # noqa: B027 - most have nothing to remember
        """Called when the rates of the coming update have been set."""

    def forget(self) -> None:  # noqa: B027 - see remember
        """Called when the sample has changed: what is remembered belongs to other elements."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be stored to go on; nothing where u is in the optimizer's own state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - see remember
        """Restores `state_dict`."""


class MomentumDirection(Direction):
    """SGD with momentum: u is the momentum buffer."""

    is_sgd = True

    def read(self, index: int, sample: GroupSample) -> Tensor | None:
        """The momentum buffers."""
        state = self.optimizer.state
        return sample.gather(lambda p: state[p].get("momentum_buffer") if p in state else None)


class GradientDirection(Direction):
    """SGD in all its forms: u = g + decay * w without momentum, g + decay * w + momentum * buffer with Nesterov's.

    What the gradient foretells is exact at any rate, where the change of the parameters drowns in their rounding at
    a tiny one. Should they have moved otherwise by more than rounding explains (the gradient was clipped after the
    decision), the change is what is read.
    """

    is_sgd = True

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._measured = MeasuredDirection(optimizer)
        self._gradients: list[Tensor | None] = []

    def read(self, index: int, sample: GroupSample) -> Tensor | None:
        """From the gradients and the change since `remember`, and the momentum buffers."""
        group, state = self.optimizer.param_groups[index], self.optimizer.state
        buffer = None
        if group["momentum"] != 0:
            buffer = sample.gather(lambda p: state[p].get("momentum_buffer") if p in state else None)
            if not group["nesterov"]:
                return buffer
        measured = self._measured.read(index, sample)
        foretold = self._gradients[index] if index < len(self._gradients) else None
        if measured is None or foretold is None:
            return None
        if buffer is not None:
            foretold = foretold + group["momentum"] * buffer
        explained = self._measured.rounding(index, foretold)
        return torch.where((measured - foretold).norm() <= explained, foretold, measured)

    def remember(self, sample: ParameterSample) -> None:
        """Copies the gradients, with the weight decay in them, and the parameters."""
        self._measured.remember(sample)
        pairs = zip(sample.groups, self.optimizer.param_groups, strict=True)
        self._gradients = [_decayed_gradient(part, group) for part, group in pairs]

    def forget(self) -> None:
        """Nothing is known until the next update."""
        self._measured.forget()
        self._gradients = []

    def state_dict(self) -> dict[str, Any]:
        """The copies, one of each a group."""
        state = self._measured.state_dict()
        return state | {"gradients": list(self._gradients)} if state else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies onto the parameters' devices."""
        self._measured.load_state_dict(state)
        self._gradients = _on_devices(self.optimizer, state.get("gradients", []))


def _decayed_gradient(sample: GroupSample, group: dict[str, Any]) -> Tensor | None:
    """What torch.optim.SGD makes of a gradient before any momentum; None where a plain buffer holds it all."""
    if group["momentum"] != 0 and not group["nesterov"]:
        return None
    grad = sample.gather(lambda p: p.grad)
    # A parameter without a gradient is left alone, decay and all.
    param = sample.gather(lambda p: p if p.grad is not None else None) if group["weight_decay"] != 0 else None
    if grad is None:
        return None
    grad = -grad if group["maximize"] else grad
    return grad if param is None else grad + group["weight_decay"] * param


class AdamDirection(Direction):
    """Adam and AdamW: u = m / (sqrt(v) + eps), both corrected for their bias."""

    def read(self, index: int, sample: GroupSample) -> Tensor | None:
        """From the moments; parameters that joined the run later share the first one's step count."""
        group, state = self.optimizer.param_groups[index], self.optimizer.state
        started = [state[p] for p in sample.params if p in state and "step" in state[p]]
        if not started:
            return None
        name = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
        first = sample.gather(lambda p: state[p].get("exp_avg") if p in state else None)
        second = sample.gather(lambda p: state[p].get(name) if p in state else None)
        if first is None or second is None:
            return None
        if sample.scale is not None:  # a square root's scale, not the square's
            second = second * sample.scale
        beta1, beta2 = group["betas"]
        # 0 after a step that was skipped inside a fused optimizer, whose moments are still zero.
        step = torch.as_tensor(started[0]["step"]).clamp_min(1)
        eps = group["eps"] if sample.scale is None else group["eps"] * sample.scale
        denominator = second.sqrt() / (1.0 - beta2**step) ** 0.5 + eps
        direction: Tensor = first / denominator / (1.0 - beta1**step)
        return direction if sample.scale is None else direction * sample.scale


class MeasuredDirection(Direction):
    """Any optimizer: u = (w before - w after) / lr on the sample.

    At a rate so small that the parameters' own rounding shows in the change, so it does in u.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._before: list[Tensor | None] = []
        self._lrs: list[Tensor | float] = []

    def read(self, index: int, sample: GroupSample) -> Tensor | None:
        """From the change since `remember`; 0 where the rate was 0."""
        before = self._before[index] if index < len(self._before) else None
        after = sample.gather(lambda p: p)
        if before is None or after is None or len(before) != len(after):
            return None
        lr = torch.as_tensor(self._lrs[index], dtype=after.dtype, device=after.device)
        change = before - after
        return torch.where(lr > 0, change / lr.clamp_min(1e-30), torch.zeros_like(change))

    def rounding(self, index: int, update: Tensor) -> Tensor:
        """Norm by which u may be off through the parameters' rounding, when `update` is what was applied, ()."""
        before = self._before[index]
        if before is None:
            raise RuntimeError("rounding() of a direction that was not remembered")
        eps = max(torch.finfo(p.dtype).eps for p in self.optimizer.param_groups[index]["params"])
        lr = torch.as_tensor(self._lrs[index], device=update.device).clamp_min(1e-30)
        bound: Tensor = 2.0 * eps * (before.norm() / lr + update.norm())
        return bound

    def remember(self, sample: ParameterSample) -> None:
        """Copies what the coming update will change, and its rates."""
        self._before = [group.gather(lambda p: p) for group in sample.groups]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self._lrs = [lr.clone() if isinstance(lr, Tensor) else lr for lr in rates]

    def forget(self) -> None:
        """Nothing is known until the next update."""
        self._before, self._lrs = [], []

    def state_dict(self) -> dict[str, Any]:
        """The copies and the rates, one of each a group; of sharded parameters, which differ by rank, nothing."""
        if mesh_of(self.optimizer) is not None:
            return {}
        return {"before": list(self._before), "lrs": [float(lr) for lr in self._lrs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies onto the parameters' devices."""
        self._before = _on_devices(self.optimizer, state.get("before", []))
        self._lrs = list(state.get("lrs", []))


def _on_devices(optimizer: Optimizer, tensors: list[Tensor | None]) -> list[Tensor | None]:
    """Copies of one tensor a group, each where the group's parameters are."""
    pairs = zip(tensors, optimizer.param_groups, strict=False)
    return [None if t is None else t.to(group["params"][0].device, copy=True) for t, group in pairs]


def direction_of(optimizer: Optimizer) -> Direction:
    """The cheapest reader that is right for this optimizer.

    Exact types only: a subclass may apply something else than its parent's state says.
    """
    groups = optimizer.param_groups
    if type(optimizer) is SGD:
        in_state = all(group["momentum"] != 0 and not group["nesterov"] for group in groups)
        return MomentumDirection(optimizer) if in_state else GradientDirection(optimizer)
    if type(optimizer) in (Adam, AdamW):
        return AdamDirection(optimizer)
    return MeasuredDirection(optimizer)
