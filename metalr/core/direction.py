"""The direction u that an optimizer applied last, for a unit rate: parameters moved by -lr * u.

For SGD with momentum and for Adam and AdamW it is read off the optimizer's state. SGD without momentum and Nesterov's
keep no such state: theirs follows from the gradient. For any other optimizer it is measured on the sampled parameters,
of which a copy is kept from just before its step, and one from just after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from metalr.core.sample import GroupSample, ParamGroup, mesh_of, trained

Sources = dict[str, list[Tensor | None]]
"""Lists with one tensor for each parameter of a group, by the name of their row in `Gathered`."""


class Gathered(NamedTuple):
    """Holds what is gathered of one parameter group on its sample, each a row (n,); None for what was not asked for.

    Attributes:
        grad: gradients.
        param: parameters.
        momentum: SGD's momentum buffers.
        first_moment: Adam's running mean of the gradients.
        second_moment: Adam's running mean of their squares, or its largest so far.
        decayed: parameters that the weight decay moves, and zeros for the others; None where it moves all of them.
    """

    grad: Tensor
    param: Tensor
    momentum: Tensor | None = None
    first_moment: Tensor | None = None
    second_moment: Tensor | None = None
    decayed: Tensor | None = None


class Direction(ABC):
    """Reads u of one parameter group at a time, on the elements of a sample.

    At each step, the group's gradients, its parameters and its `sources` are gathered into `Gathered`. Of
    these, `read` makes u, and `remember` keeps what the next step needs.

    Attributes:
        is_sgd: whether an update is a gradient or a running sum of gradients, not normalised by its size.
        is_measured: whether `before_step` and `after_step` have to be called around the optimizer's own step.
    """

    is_sgd: bool = False
    is_measured: bool = False

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """Lists what to gather of the optimizer's state for these parameters of the index-th group."""
        return {}

    def gather(self, index: int, sample: GroupSample) -> Gathered | None:
        """Gathers gradients, parameters and `sources` on the sample; None where none has a gradient."""
        grads = [param.grad for param in sample.params]
        if all(grad is None for grad in grads):
            return None
        sources = self.sources(index, sample.params)
        gathered = sample.gather(grads, self._parameters(index, sample), *sources.values())
        grad, param, *rows = gathered.unbind()
        return Gathered(grad, param, **dict(zip(sources, rows, strict=True)))

    @abstractmethod
    def read(self, index: int, rows: Gathered) -> Tensor | None:
        """Makes the direction u of the index-th group, (n,); None where it has not been updated yet.

        Args:
            index: of the group.
            rows: of `gather`; u may be made in those of `sources`.
        """

    def remember(self, rows: Sequence[Gathered | None]) -> None:  # noqa: B027 - most have nothing to remember
        """Keeps what the next step needs: called with the rows of each group when the update's rates have been set."""

    def before_step(self, samples: Sequence[GroupSample]) -> None:  # noqa: B027 - see remember
        """Keeps what the optimizer's own step is about to change, of the sample of each group."""

    def after_step(self, samples: Sequence[GroupSample]) -> None:  # noqa: B027 - see remember
        """Keeps the result of that step."""

    def forget(self) -> None:  # noqa: B027 - see remember
        """Drops what is kept: called when the sample has changed, as it belongs to other elements."""

    def state_dict(self) -> dict[str, Any]:
        """Returns what has to be stored to go on; nothing where u is in the optimizer's own state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - see remember
        """Restores `state_dict`."""

    def _parameters(self, index: int, sample: GroupSample) -> Sequence[Tensor | None] | Tensor:
        """Returns what is gathered as the parameters of the index-th group."""
        return sample.params

    def _states(self, params: Sequence[Tensor], name: str) -> list[Tensor | None]:
        """Lists a part of the optimizer's state for each parameter; None where there is none yet."""
        state = self.optimizer.state
        return [state[p].get(name) if p in state else None for p in params]


class MomentumDirection(Direction):
    """Reads u of SGD with momentum: the momentum buffer."""

    is_sgd = True

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """Lists the momentum buffers, where there are any yet."""
        buffers = self._states(params, "momentum_buffer")
        return {} if all(buffer is None for buffer in buffers) else {"momentum": buffers}

    def read(self, index: int, rows: Gathered) -> Tensor | None:
        """Takes the momentum buffers."""
        return rows.momentum


class AdamDirection(Direction):
    """Reads u of Adam and AdamW: m / (sqrt(v) + eps), both corrected for their bias."""

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """Lists the moments, where there are any yet."""
        second = "max_exp_avg_sq" if self.optimizer.param_groups[index]["amsgrad"] else "exp_avg_sq"
        moments = {"first_moment": self._states(params, "exp_avg"), "second_moment": self._states(params, second)}
        return moments if all(any(m is not None for m in row) for row in moments.values()) else {}

    def read(self, index: int, rows: Gathered) -> Tensor | None:
        """Divides the moments; parameters that joined the run later share the first one's step count."""
        if rows.first_moment is None or rows.second_moment is None:
            return None
        group = self.optimizer.param_groups[index]
        steps = self._states(trained(group), "step")
        step: Any = next(step for step in steps if step is not None)
        if step.is_cpu and not isinstance(group["lr"], Tensor):
            step = step.item()
        # 0 after a step that was skipped inside a fused optimizer, whose moments are still zero.
        step = step.clamp_min(1) if isinstance(step, Tensor) else max(step, 1)
        beta1, beta2 = group["betas"]
        denominator = rows.second_moment.sqrt_().div_((1.0 - beta2**step) ** 0.5).add_(group["eps"])
        direction: Tensor = rows.first_moment.div_(denominator).div_(1.0 - beta1**step)
        return direction


class MeasuredDirection(Direction):
    """Reads u of any optimizer: (w before its step - w after it) / lr on the sample.

    `before_step` and `after_step` copy the sample around the optimizer's own step, so that what moves the parameters
    at other times (sharpness-aware perturbations, extrapolation, weight noise) is no part of u. Where the optimizer has
    no step that could be watched, as boosted trees have none, u is what happened between two decisions.

    At very small rates, rounding of the parameters dominates the measured change, and hence u.

    Where rates are tensors, copies are kept in place, for graphs that take the step. One that is compiled has no hooks
    around the optimizer's step: u is what happened between two decisions there, too.
    """

    is_measured = True

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._watched = False
        self._coming: list[Tensor | None] = []
        self._before: list[Tensor | None] = []
        self._after: list[Tensor | None] = []
        self._lrs: list[Tensor | float] = []

    def before_step(self, samples: Sequence[GroupSample]) -> None:
        """Copies the parameters that the step will change."""
        self._watched = True
        self._coming = [_copied(sample) for sample in samples]

    def after_step(self, samples: Sequence[GroupSample]) -> None:
        """Copies the parameters that it left, and notes the rates that it was taken with."""
        if self._coming:  # the sample is still that of before the step
            self._before, self._coming = self._keep(self._before, self._coming), []
            self._after = self._keep(self._after, [_copied(sample) for sample in samples])
            self._lrs = self._kept_rates()

    def remember(self, rows: Sequence[Gathered | None]) -> None:
        """Copies what the coming update will change, and its rates, as long as no step has been watched."""
        if not self._watched or torch.compiler.is_compiling():
            self._before = self._keep(self._before, [None if group is None else group.param.clone() for group in rows])
            self._lrs = self._kept_rates()

    def forget(self) -> None:
        """Drops what is known, until the next update."""
        self._coming, self._before, self._after, self._lrs = [], [], [], []

    def read(self, index: int, rows: Gathered) -> Tensor | None:
        """Divides the change of the last update by its rate; 0 where that was 0."""
        change = self._change(index, rows)
        return None if change is None else _per_rate(change, self._lrs[index])

    def state_dict(self) -> dict[str, Any]:
        """Returns copies and rates, one of each a group; of sharded parameters, which differ by rank, nothing."""
        if mesh_of(self.optimizer) is not None:
            return {}
        return {"before": list(self._before), "lrs": [float(lr) for lr in self._lrs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies onto the parameters' devices; the parameters are those that the last update left."""
        self.forget()
        self._before = _on_devices(self.optimizer, state.get("before", []))
        self._lrs = list(state.get("lrs", []))

    def _parameters(self, index: int, sample: GroupSample) -> Sequence[Tensor | None] | Tensor:
        """Returns the parameters as the last update left them, whatever moved them since."""
        after = self._after[index] if index < len(self._after) and not torch.compiler.is_compiling() else None
        return sample.params if after is None else after

    def _kept_rates(self) -> list[Tensor | float]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        if not self._has_tensor_rates:
            return [lr.clone() if isinstance(lr, Tensor) else lr for lr in rates]
        held = [lr if isinstance(lr, Tensor) else None for lr in self._lrs]
        return list(self._keep(held, [lr.clone() for lr in rates]))  # type: ignore[arg-type]

    @property
    def _has_tensor_rates(self) -> bool:
        return all(isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups)

    def _keep(self, held: list[Tensor | None], new: list[Tensor | None]) -> list[Tensor | None]:
        """Takes new copies for old ones: in place where rates are tensors and shapes are the same."""
        if not self._has_tensor_rates or _shapes(held) != _shapes(new):
            return new
        for old, copy in zip(held, new, strict=True):
            if old is not None and copy is not None:
                old.copy_(copy)
        return held

    def _change(self, index: int, rows: Gathered) -> Tensor | None:
        """Computes the parameters before the update less those after it, (n,); None where the former are unknown."""
        before = self._before[index] if index < len(self._before) else None
        return None if before is None or len(before) != len(rows.param) else before - rows.param


def _copied(sample: GroupSample) -> Tensor | None:
    """Copies the sampled parameters, (n,); None of a group without any."""
    return sample.gather(sample.params)[0].clone() if sample.params else None


def _shapes(tensors: list[Tensor | None]) -> list[torch.Size | None]:
    return [None if tensor is None else tensor.shape for tensor in tensors]


def _per_rate(change: Tensor, lr: Tensor | float) -> Tensor:
    if not isinstance(lr, Tensor):
        return change / lr if lr > 0 else torch.zeros_like(change)
    return torch.where(lr > 0, change / lr.clamp_min(1e-30), 0.0)


class GradientDirection(MeasuredDirection):
    """Reads u of any SGD: g + decay * w without momentum, g + decay * w + momentum * buffer with Nesterov's.

    The gradient's prediction is exact at any rate, even where rounding dominates the measured change. If the parameters
    moved differently by more than rounding explains (the gradient was clipped after the decision, or recomputed at
    perturbed weights), the measured change is used.
    """

    is_sgd = True

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self._gradients: list[Tensor | None] = []

    def sources(self, index: int, params: Sequence[Tensor]) -> Sources:
        """Lists the momentum buffers, if any; then the parameters that will decay, where some have no gradient."""
        group = self.optimizer.param_groups[index]
        sources = {"momentum": self._states(params, "momentum_buffer")} if group["momentum"] != 0 else {}
        if group["weight_decay"] != 0 and any(p.grad is None for p in params):
            sources["decayed"] = [None if p.grad is None else p for p in params]
        return sources

    def read(self, index: int, rows: Gathered) -> Tensor | None:
        """Chooses between what gradients and momentum buffers predict and the change of the last update."""
        group = self.optimizer.param_groups[index]
        change = self._change(index, rows)
        if change is None:
            return None
        if group["momentum"] != 0 and not group["nesterov"]:
            return rows.momentum
        predicted = self._gradients[index] if index < len(self._gradients) else None
        if predicted is None:
            return None
        if rows.momentum is not None:
            predicted = torch.add(predicted, rows.momentum, alpha=group["momentum"])
        lr = self._lrs[index]
        off = torch.linalg.vector_norm(change - lr * predicted)
        return torch.where(off <= self._rounding(index, predicted), predicted, _per_rate(change, lr))

    def remember(self, rows: Sequence[Gathered | None]) -> None:
        """Copies the gradients, with the weight decay in them."""
        super().remember(rows)
        pairs = zip(rows, self.optimizer.param_groups, strict=True)
        self._gradients = self._keep(
            self._gradients, [None if part is None else _decayed_gradient(part, group) for part, group in pairs]
        )

    def forget(self) -> None:
        """Drops what is known, until the next update."""
        super().forget()
        self._gradients = []

    def state_dict(self) -> dict[str, Any]:
        """Returns the copies, one of each a group."""
        state = super().state_dict()
        return state | {"gradients": list(self._gradients)} if state else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the copies onto the parameters' devices."""
        super().load_state_dict(state)
        self._gradients = _on_devices(self.optimizer, state.get("gradients", []))

    def _rounding(self, index: int, update: Tensor) -> Tensor:
        """Bounds the norm of what rounding the parameters adds to the change, when `update` was applied, ()."""
        before = self._before[index]
        if before is None:
            raise RuntimeError("the parameters before this update are not known: read its change first")
        eps = max(torch.finfo(p.dtype).eps for p in trained(self.optimizer.param_groups[index]))
        norms: Tensor = torch.linalg.vector_norm(before) + self._lrs[index] * torch.linalg.vector_norm(update)
        return 2.0 * eps * norms


def _decayed_gradient(rows: Gathered, group: ParamGroup) -> Tensor:
    """Computes what torch.optim.SGD makes of a gradient before any momentum."""
    grad = rows.grad.neg() if group["maximize"] else rows.grad.clone()
    if group["weight_decay"] == 0:
        return grad
    # A parameter without a gradient is left alone, decay and all.
    return grad.add_(rows.param if rows.decayed is None else rows.decayed, alpha=group["weight_decay"])


def _on_devices(optimizer: Optimizer, tensors: list[Tensor | None]) -> list[Tensor | None]:
    """Copies one tensor for each group to the device of the group's parameters."""
    pairs = zip(tensors, optimizer.param_groups, strict=False)
    return [None if t is None else t.to(group["params"][0].device, copy=True) for t, group in pairs]


def direction_of(optimizer: Optimizer) -> Direction:
    """Chooses the cheapest reader that is right for this optimizer.

    Exact types only: a subclass may apply something else than its parent's state says.
    """
    groups = optimizer.param_groups
    if type(optimizer) is SGD:
        in_state = all(group["momentum"] != 0 and not group["nesterov"] for group in groups)
        return MomentumDirection(optimizer) if in_state else GradientDirection(optimizer)
    if type(optimizer) in (Adam, AdamW):
        return AdamDirection(optimizer)
    return MeasuredDirection(optimizer)
