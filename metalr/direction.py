"""The direction u that an optimizer applied last, for a unit rate: parameters moved by -lr * u.

For SGD with momentum and for Adam and AdamW it is read off the optimizer's state, which costs no memory. For any
other optimizer it is measured from the parameters' change, which costs one copy of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

Group = dict[str, Any]


class Direction(ABC):
    """Reads u for the parameters of one group at a time.

    Attributes:
        is_sgd: whether an update is a gradient or a running sum of gradients, not normalised by its size.
    """

    is_sgd: bool = False

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    @abstractmethod
    def read(self, params: list[Tensor], group: Group) -> list[Tensor | None]:
        """The direction u of each parameter, in its shape; None for one that has not been updated yet."""

    def remember(self) -> None:  # noqa: B027 - most have nothing to remember
        """Called when the rates of the coming update have been set."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be stored to go on; nothing where u is in the optimizer's own state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - see remember
        """Restores `state_dict`."""


class MomentumDirection(Direction):
    """SGD with momentum: u is the momentum buffer."""

    is_sgd = True

    def read(self, params: list[Tensor], group: Group) -> list[Tensor | None]:
        """The momentum buffers; None before the first update."""
        return [self.optimizer.state[p].get("momentum_buffer") for p in params]


class AdamDirection(Direction):
    """Adam and AdamW: u = m / (sqrt(v) + eps), both corrected for their bias."""

    def read(self, params: list[Tensor], group: Group) -> list[Tensor | None]:
        """From the moments in the optimizer's state; None before the first update."""
        return [self._one(self.optimizer.state[p], group) for p in params]

    @staticmethod
    def _one(state: dict[str, Any], group: Group) -> Tensor | None:
        if "exp_avg" not in state:
            return None
        beta1, beta2 = group["betas"]
        step = state["step"]
        second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
        denominator = second.sqrt() / (1.0 - beta2**step) ** 0.5 + group["eps"]
        direction: Tensor = state["exp_avg"] / denominator / (1.0 - beta1**step)
        return direction


class MeasuredDirection(Direction):
    """Any optimizer: u = (w before - w after) / lr, with one copy of the parameters kept between steps."""

    def __init__(self, optimizer: Optimizer, is_sgd: bool = False) -> None:
        super().__init__(optimizer)
        self.is_sgd = is_sgd
        self._before: dict[Tensor, Tensor] = {}
        self._lrs: dict[Tensor, Tensor | float] = {}

    def read(self, params: list[Tensor], group: Group) -> list[Tensor | None]:
        """From the change since `remember`; None for a parameter not seen before, 0 where the rate was 0."""
        return [self._one(p) for p in params]

    def _one(self, param: Tensor) -> Tensor | None:
        if param not in self._before:
            return None
        lr = torch.as_tensor(self._lrs[param], device=param.device)
        change = self._before[param] - param.detach()
        return torch.where(lr > 0, change / lr.clamp_min(1e-30), torch.zeros_like(change))

    def remember(self) -> None:
        """Copies the parameters that the coming update will change, and their rates."""
        for group in self.optimizer.param_groups:
            lr = group["lr"]
            for param in group["params"]:
                if param.grad is None:
                    continue
                if param in self._before:
                    self._before[param].copy_(param.detach())
                else:
                    self._before[param] = param.detach().clone()
                self._lrs[param] = lr.clone() if isinstance(lr, Tensor) else lr

    def state_dict(self) -> dict[str, Any]:
        """The copies and rates by the parameters' position in the optimizer, as torch numbers them."""
        params = self._params()
        known = [i for i, p in enumerate(params) if p in self._before]
        return {
            "before": {i: self._before[params[i]].clone() for i in known},
            "lrs": {i: float(self._lrs[params[i]]) for i in known},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies onto the parameters' devices."""
        params = self._params()
        self._before = {params[i]: t.to(params[i], copy=True) for i, t in state.get("before", {}).items()}
        self._lrs = {params[i]: lr for i, lr in state.get("lrs", {}).items()}

    def _params(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def direction_of(optimizer: Optimizer) -> Direction:
    """The cheapest reader that is right for this optimizer.

    Exact types only: a subclass may apply something else than its parent's state says.
    """
    groups = optimizer.param_groups
    if type(optimizer) is SGD:
        in_state = all(group["momentum"] != 0 and not group["nesterov"] for group in groups)
        return MomentumDirection(optimizer) if in_state else MeasuredDirection(optimizer, is_sgd=True)
    if type(optimizer) in (Adam, AdamW):
        return AdamDirection(optimizer)
    return MeasuredDirection(optimizer)
