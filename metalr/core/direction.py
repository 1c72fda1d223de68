"""The direction u that an optimizer applied last, for a unit rate: parameters moved by -lr * u.

For SGD with momentum and for Adam and AdamW it is read off the optimizer's state. SGD without momentum and Nesterov's
keep no such state: theirs follows from the gradient. For any other optimizer it is measured from the change of the
sampled parameters, of which one copy is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from metalr.core.sample import GroupSample, mesh_of

Sources = list[list[Tensor | None]]
"""Lists with one tensor for each parameter of a group, as `GroupSample.gather` takes them."""


class Direction(ABC):
    """Reads u of one parameter group at a time, on the elements of a sample.

    At each step, the group's gradients, its parameters and its `sources` are gathered into the rows of a matrix. Of
    these, `read` makes u, and `remember` keeps what the next step needs.

    Attributes:
        is_sgd: whether an update is a gradient or a running sum of gradients, not normalised by its size.
    """

    is_sgd: bool = False

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """What to gather of the optimizer's state for these parameters of the index-th group."""
        return []

    def gather(self, index: int, sample: GroupSample) -> Tensor | None:
        """Gradients, parameters and `sources` on the sample, (2 + S, n); None where no parameter has a gradient."""
        grads = [param.grad for param in sample.params]
        if all(grad is None for grad in grads):
            return None
        return sample.gather(grads, sample.params, *self.sources(index, sample.params))

    @abstractmethod
    def read(self, index: int, rows: Tensor) -> Tensor | None:
        """Direction u of the index-th group, (n,); None where it has not been updated yet.

        Args:
            index: of the group.
            rows: of `gather`; u may be made in those of `sources`.
        """

    def remember(self, rows: Sequence[Tensor | None]) -> None:  # noqa: B027 - most have nothing to remember
        """Called when the rates of the coming update have been set, with the rows of each group."""

    def forget(self) -> None:  # noqa: B027 - see remember
        """Called when the sample has changed: what is remembered belongs to other elements."""

    def state_dict(self) -> dict[str, Any]:
        """What has to be stored to go on; nothing where u is in the optimizer's own state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - see remember
        """Restores `state_dict`."""

    def _states(self, params: Sequence[Tensor], name: str) -> list[Tensor | None]:
        """A part of the optimizer's state for each parameter; None where there is none yet."""
        state = self.optimizer.state
        return [state[p].get(name) if p in state else None for p in params]


class MomentumDirection(Direction):
    """SGD with momentum: u is the momentum buffer."""

    is_sgd = True

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """The momentum buffers, where there are any yet."""
        buffers = self._states(params, "momentum_buffer")
        return [] if all(buffer is None for buffer in buffers) else [buffers]

    def read(self, index: int, rows: Tensor) -> Tensor | None:
        """The momentum buffers."""
        return rows[2] if len(rows) > 2 else None


class AdamDirection(Direction):
    """Adam and AdamW: u = m / (sqrt(v) + eps), both corrected for their bias."""

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """The moments, where there are any yet."""
        second = "max_exp_avg_sq" if self.optimizer.param_groups[index]["amsgrad"] else "exp_avg_sq"
        moments = [self._states(params, "exp_avg"), self._states(params, second)]
        return moments if all(any(m is not None for m in row) for row in moments) else []

    def read(self, index: int, rows: Tensor) -> Tensor | None:
        """From the moments; parameters that joined the run later share the first one's step count."""
        if len(rows) == 2:
            return None
        group = self.optimizer.param_groups[index]
        steps = self._states([p for p in group["params"] if p.requires_grad], "step")
        step: Any = next(step for step in steps if step is not None)
        if step.is_cpu and not isinstance(group["lr"], Tensor):
            step = step.item()
        # 0 after a step that was skipped inside a fused optimizer, whose moments are still zero.
        step = step.clamp_min(1) if isinstance(step, Tensor) else max(step, 1)
        beta1, beta2 = group["betas"]
        first, second = rows[2:]
        denominator = second.sqrt_().div_((1.0 - beta2**step) ** 0.5).add_(group["eps"])
        direction: Tensor = first.div_(denominator).div_(1.0 - beta1**step)
        return direction


class MeasuredDirection(Direction):
    """Any optimizer: u = (w before - w after) / lr on the sample.

    At a rate so small that the parameters' own rounding shows in the change, so it does in u.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._before: list[Tensor | None] = []
        self.lrs: list[Tensor | float] = []

    def read(self, index: int, rows: Tensor) -> Tensor | None:
        """From the change since `remember`; 0 where the rate was 0."""
        change = self.change(index, rows)
        return None if change is None else _per_rate(change, self.lrs[index])

    def change(self, index: int, rows: Tensor) -> Tensor | None:
        """The parameters before the update less those after it, (n,); None where those before it are not known."""
        before = self._before[index] if index < len(self._before) else None
        return None if before is None or len(before) != rows.shape[1] else before - rows[1]

    def rounding(self, index: int, update: Tensor) -> Tensor:
        """Norm by which `change` may be off through the parameters' rounding, when `update` was applied, ()."""
        before = self._before[index]
        if before is None:
            raise RuntimeError("rounding() of a direction that was not remembered")
        kinds = {p.dtype for p in self.optimizer.param_groups[index]["params"]}
        eps = max(torch.finfo(kind).eps for kind in kinds)
        norms: Tensor = torch.linalg.vector_norm(before) + self.lrs[index] * torch.linalg.vector_norm(update)
        return 2.0 * eps * norms

    def remember(self, rows: Sequence[Tensor | None]) -> None:
        """Copies what the coming update will change, and its rates."""
        self._before = [None if group is None else group[1].clone() for group in rows]
        rates = [group["lr"] for group in self.optimizer.param_groups]
        self.lrs = [lr.clone() if isinstance(lr, Tensor) else lr for lr in rates]

    def forget(self) -> None:
        """Nothing is known until the next update."""
        self._before, self.lrs = [], []

    def state_dict(self) -> dict[str, Any]:
        """The copies and the rates, one of each a group; of sharded parameters, which differ by rank, nothing."""
        if mesh_of(self.optimizer) is not None:
            return {}
        return {"before": list(self._before), "lrs": [float(lr) for lr in self.lrs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies onto the parameters' devices."""
        self._before = _on_devices(self.optimizer, state.get("before", []))
        self.lrs = list(state.get("lrs", []))


def _per_rate(change: Tensor, lr: Tensor | float) -> Tensor:
    if not isinstance(lr, Tensor):
        return change / lr if lr > 0 else torch.zeros_like(change)
    return torch.where(lr > 0, change / lr.clamp_min(1e-30), 0.0)


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

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """The momentum buffers, if any; then the parameters that will decay, where some have no gradient."""
        group = self.optimizer.param_groups[index]
        rows = [self._states(params, "momentum_buffer")] if group["momentum"] != 0 else []
        if group["weight_decay"] != 0 and any(p.grad is None for p in params):
            rows.append([None if p.grad is None else p for p in params])
        return rows

    def read(self, index: int, rows: Tensor) -> Tensor | None:
        """From the gradients and the change since `remember`, and the momentum buffers."""
        group = self.optimizer.param_groups[index]
        change = self._measured.change(index, rows)
        if change is None:
            return None
        if group["momentum"] != 0 and not group["nesterov"]:
            return rows[2]
        foretold = self._gradients[index]
        if foretold is None:
            return None
        if group["momentum"] != 0:
            foretold = torch.add(foretold, rows[2], alpha=group["momentum"])
        lr = self._measured.lrs[index]
        off = torch.linalg.vector_norm(change - lr * foretold)
        return torch.where(off <= self._measured.rounding(index, foretold), foretold, _per_rate(change, lr))

    def remember(self, rows: Sequence[Tensor | None]) -> None:
        """Copies the gradients, with the weight decay in them, and the parameters."""
        self._measured.remember(rows)
        pairs = zip(rows, self.optimizer.param_groups, strict=True)
        self._gradients = [None if part is None else _decayed_gradient(part, group) for part, group in pairs]

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


def _decayed_gradient(rows: Tensor, group: dict[str, Any]) -> Tensor:
    """What torch.optim.SGD makes of a gradient before any momentum."""
    grad = rows[0].neg() if group["maximize"] else rows[0].clone()
    if group["weight_decay"] == 0:
        return grad
    # A parameter without a gradient is left alone, decay and all.
    alone = 2 + (group["momentum"] != 0)
    return grad.add_(rows[alone] if len(rows) > alone else rows[1], alpha=group["weight_decay"])


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
