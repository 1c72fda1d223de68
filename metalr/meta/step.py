"""One step of R inner runs, as three pure functions: measure, decide, update.

Each is compiled for itself, so that few compilations serve many tasks: `measure` once for a network, `decide` once
for a number of runs, `update` once for an optimizer, whatever the number of parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from metalr.features import Memory, observe
from metalr.law import Clock, advance
from metalr.meta.nets import Net
from metalr.meta.optimizers import OPTIMIZERS, BatchedOptimizer, Buffers, Hyper
from metalr.policy import Layers, apply_layers
from metalr.signals import Signals, alignment


class RunState(NamedTuple):
    """State of R runs: parameters (R, n), the optimizer's buffers, the features' memory, and s (R,)."""

    theta: Tensor
    buffers: Buffers
    memory: Memory
    displacement: Tensor

    @classmethod
    def start(cls, theta: Tensor, optimizer: BatchedOptimizer) -> RunState:
        """Before the first step, from initial parameters (R, n)."""
        zeros = torch.zeros(len(theta), device=theta.device)
        return cls(theta, optimizer.start(theta), Memory.empty(len(theta), theta.device), zeros)

    def map(self, function: Callable[[Tensor], Tensor]) -> RunState:
        """The function of every tensor, in the order of `tensors`."""
        theta = function(self.theta)
        buffers, memory = Buffers(*map(function, self.buffers)), Memory(*map(function, self.memory))
        return RunState(theta, buffers, memory, function(self.displacement))

    def tensors(self) -> list[Tensor]:
        """All tensors."""
        return [self.theta, *self.buffers, *self.memory, self.displacement]


class StepRecord(NamedTuple):
    """What one step saw and did: loss (R,), features (R, F), where they were finite (R,), rate (R,)."""

    loss: Tensor
    features: Tensor
    finite: Tensor
    lr: Tensor


class Measured(NamedTuple):
    """Loss, |g|, |w|, |u| and <g, u> of each run, (R,); u is the direction applied last."""

    loss: Tensor
    grad_norm: Tensor
    param_norm: Tensor
    direction_norm: Tensor
    product: Tensor


class Step:
    """Advances R runs by one step.

    Args:
        net: that the runs train.
        optimizer: name out of `OPTIMIZERS`.
        compiled: run the three parts through torch.compile.
    """

    def __init__(self, net: Net, optimizer: str, compiled: bool = False) -> None:
        self.optimizer = OPTIMIZERS[optimizer]
        self._measure = _measure_part(net, compiled)
        self._decide = _decide_part(compiled)
        self._update = _update_part(optimizer, compiled)

    def __call__(
        self,
        state: RunState,
        layers: Layers,
        columns: Tensor,
        hyper: Hyper,
        scale: Tensor,
        row: Tensor,
        count: Tensor,
        batch: tuple[Tensor, Tensor],
        push: Tensor,
    ) -> tuple[RunState, StepRecord]:
        """The state after the step, and what it saw.

        Args:
            state: before the step.
            layers: of one policy or of R policies.
            columns: features that the policy reads.
            hyper: of the runs.
            scale: of the parameters inside the network, (R, n).
            row: of `metalr.law.clock_table`.
            count: steps done before, shape ().
            batch: inputs and targets, (R, B, ...).
            push: added to the policy's output, (R,).
        """
        grad, seen = self._measure(state.theta, scale, state.buffers.direction, *batch)
        kind, first = self._constants(grad)
        memory, features, finite, displacement, lr = self._decide(
            state.memory, state.displacement, seen, kind, first, layers, columns, hyper.lr[:, 0], row, push
        )
        theta, buffers = self._update(state.theta, grad, state.buffers, hyper, count, lr[:, None])
        return RunState(theta, buffers, memory, displacement), StepRecord(seen.loss, features, finite, lr)

    def _constants(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The optimizer's sign, and |u| that the signals assume before the first update; 0 stands for |g|."""
        values = (1.0, 0.0) if self.optimizer.is_sgd else (-1.0, grad.shape[1] ** 0.5)
        kind, first = grad.new_tensor(values).unbind()
        return kind, first


def _compile(function: Callable[..., Any], compiled: bool, dynamic: bool = False) -> Callable[..., Any]:
    if not compiled:
        return function
    # All networks share one code object, and the default allows eight compilations of it.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    return torch.compile(function, dynamic=dynamic, fullgraph=True)


@cache
def validation(net: Net, compiled: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Losses (R,) of the parameters inside the network, (R, n), on inputs and targets (R, N, ...)."""
    return _compile(vmap(net.flat_loss), compiled)


@cache
def _measure_part(net: Net, compiled: bool) -> Callable[..., tuple[Tensor, Measured]]:
    def total(theta: Tensor, scale: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses = vmap(net.flat_loss)(theta * scale, inputs, targets)
        return losses.sum(), losses

    gradient = torch.func.grad_and_value(total, has_aux=True)

    def measure(
        theta: Tensor, scale: Tensor, direction: Tensor, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Measured]:
        grad, (_, loss) = gradient(theta, scale, inputs, targets)
        product = (grad * direction).sum(1)
        return grad, Measured(loss, grad.norm(dim=1), theta.norm(dim=1), direction.norm(dim=1), product)

    return _compile(measure, compiled)


@cache
def _decide_part(compiled: bool) -> Callable[..., tuple[Memory, Tensor, Tensor, Tensor, Tensor]]:
    return _compile(decide, compiled)


def decide(
    memory: Memory,
    displacement: Tensor,
    seen: Measured,
    kind: Tensor,
    first: Tensor,
    layers: Layers,
    columns: Tensor,
    initial_lr: Tensor,
    row: Tensor,
    push: Tensor,
) -> tuple[Memory, Tensor, Tensor, Tensor, Tensor]:
    """Signals -> features -> policy -> law: the memory, the features, where finite, s, and the rate.

    The signals are the batched twin of `metalr.signals.measure`.
    """
    clock = Clock.from_row(row)
    start = memory.seen == 0
    cosine = torch.where(start, 0.0, alignment(seen.product, seen.grad_norm, seen.direction_norm))
    assumed = torch.where(first > 0, first, seen.grad_norm)
    update_norm = initial_lr * torch.where(start, assumed, seen.direction_norm)
    kinds = kind.expand_as(seen.loss)
    signals = Signals(seen.loss, seen.grad_norm, seen.param_norm, update_norm, cosine, kinds)
    memory, features, finite = observe(memory, signals, displacement, clock)
    output = apply_layers(layers, features.index_select(-1, columns)) + push
    displacement = advance(displacement, output, clock, finite)
    lr = initial_lr * torch.exp(clock.log_reference + displacement)
    return memory, features, finite, displacement, lr


@cache
def _update_part(optimizer: str, compiled: bool) -> Callable[..., tuple[Tensor, Buffers]]:
    rule = OPTIMIZERS[optimizer]

    def update(
        theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, count: Tensor, lr: Tensor
    ) -> tuple[Tensor, Buffers]:
        buffers = rule.direction(theta, grad, buffers, hyper, count)
        return rule.apply(theta, buffers.direction, lr, hyper), buffers

    return _compile(update, compiled, dynamic=True)
