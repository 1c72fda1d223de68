"""Inner runs: R networks trained side by side, each at the rate that its own policy sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap

from metalr.features import Memory, observe
from metalr.law import Clock, advance, clock_table
from metalr.meta.nets import Net
from metalr.meta.optimizers import OPTIMIZERS, BatchedOptimizer, Buffers, Hyper
from metalr.meta.task import Task
from metalr.policy import Layers, apply_layers
from metalr.signals import Signals, alignment

LOG_RATIO_RANGE = (-10.0, 1.5)
"""Range of log(validation loss / initial one) in the outer loss: a run that diverges scores as exp(1.5)."""


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


class StepRecord(NamedTuple):
    """What one step saw and did: loss (R,), features (R, F), rate (R,)."""

    loss: Tensor
    features: Tensor
    lr: Tensor


StepFunction = Callable[..., tuple[RunState, StepRecord]]


def make_step(net: Net, optimizer: BatchedOptimizer) -> StepFunction:
    """The pure function of one step of R runs: gradient, signals, features, policy, law, update."""

    def total(theta: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses = vmap(net.flat_loss)(theta, inputs, targets)
        return losses.sum(), losses

    def step(
        state: RunState,
        layers: Layers,
        columns: Tensor,
        hyper: Hyper,
        row: Tensor,
        count: Tensor,
        inputs: Tensor,
        targets: Tensor,
    ) -> tuple[RunState, StepRecord]:
        clock = Clock.from_row(row)
        grad, (_, loss) = grad_and_value(total, has_aux=True)(state.theta, inputs, targets)
        signals = _signals(state, loss, grad, optimizer, hyper)
        memory, features, finite = observe(state.memory, signals, state.displacement, clock)
        output = apply_layers(layers, features.index_select(-1, columns))
        displacement = advance(state.displacement, output, clock, finite)
        lr = hyper.lr * torch.exp(clock.log_reference + displacement)[:, None]
        buffers = optimizer.direction(state.theta, grad, state.buffers, hyper, count)
        theta = optimizer.apply(state.theta, buffers.direction, lr, hyper)
        return RunState(theta, buffers, memory, displacement), StepRecord(loss, features, lr[:, 0])

    return step


def _signals(state: RunState, loss: Tensor, grad: Tensor, optimizer: BatchedOptimizer, hyper: Hyper) -> Signals:
    """The batched twin of `metalr.signals.measure`."""
    direction, lr = state.buffers.direction, hyper.lr[:, 0]
    grad_norm = grad.norm(dim=1)
    applied_norm = direction.norm(dim=1)
    start = state.memory.seen == 0
    cosine = torch.where(start, 0.0, alignment((grad * direction).sum(1), grad_norm, applied_norm))
    update_norm = lr * torch.where(start, optimizer.first_norm(grad), applied_norm)
    kind = torch.full_like(loss, 1.0 if optimizer.is_sgd else -1.0)
    return Signals(loss, grad_norm, state.theta.norm(dim=1), update_norm, cosine, kind)


@cache
def _compiled_step(net: Net, optimizer: str, compiled: bool) -> StepFunction:
    step = make_step(net, OPTIMIZERS[optimizer])
    if not compiled:
        return step
    # All networks share one code object, and the default allows eight compilations of it.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    return torch.compile(step, dynamic=False, fullgraph=True)


@dataclass(frozen=True)
class Inner:
    """How inner runs are trained.

    Attributes:
        optimizer: "sgd" or "adam".
        hyper: hyperparameters of the P instances, (P, 1) each.
        total_steps: horizon T, steps.
        known: whether the policy is told T; otherwise the runs are in the anytime mode.
        batch_seed: of the order of batches.
        first: position of the first instance among those that batches are drawn for.
        drawn: number of instances that batches are drawn for; 0 for just these.
    """

    optimizer: str
    hyper: Hyper
    total_steps: int
    known: bool = True
    batch_seed: int = 0
    first: int = 0
    drawn: int = 0

    def select(self, instances: slice) -> Inner:
        """The training of some of the instances, with the batches that they have among all."""
        first, _, _ = instances.indices(len(self.hyper.lr))
        drawn = self.drawn or len(self.hyper.lr)
        return replace(self, hyper=self.hyper.select(instances), first=self.first + first, drawn=drawn)


@dataclass(frozen=True)
class Rollout:
    """Result of R inner runs.

    Attributes:
        curve: log(validation loss / initial one), within `LOG_RATIO_RANGE`, at E times, (E, R).
        initial: validation loss before the first step, (R,).
        records: every step's record where asked for.
    """

    curve: Tensor
    initial: Tensor
    records: list[StepRecord]

    def outer_loss(self, final_weight: float = 0.6) -> Tensor:
        """final_weight * last point of the curve + the rest * its mean, (R,)."""
        return final_weight * self.curve[-1] + (1.0 - final_weight) * self.curve.mean(0)


@torch.no_grad()
def rollout(
    task: Task,
    inner: Inner,
    layers: Layers,
    columns: Tensor,
    copies: int = 1,
    evaluations: int = 16,
    compiled: bool = False,
    record: bool = False,
) -> Rollout:
    """Trains copies * P networks from start to end.

    Args:
        task: P instances. Copies of an instance share its initial parameters, batches and hyperparameters.
        inner: the inner training.
        layers: of one policy, or of copies * P policies (copy by copy).
        columns: features that the policy reads, as indices into `metalr.features.FEATURES`.
        copies: runs for each instance.
        evaluations: number of validation losses along the run, evenly spaced, the last at its end.
        compiled: run each step through torch.compile; pays off after some 100,000 inner steps on one network.
        record: keep every step's record.
    """
    device = task.theta.device
    step = _compiled_step(task.net, inner.optimizer, compiled)
    state = RunState.start(task.theta.repeat(copies, 1), OPTIMIZERS[inner.optimizer])
    hyper = Hyper(*(value.to(device) for value in inner.hyper.repeat(copies)))
    table = clock_table(inner.total_steps, inner.known, device)
    counts = torch.arange(inner.total_steps, device=device, dtype=torch.float32)
    batches = _batch_indices(task, inner)
    validate = vmap(task.net.flat_loss)
    valid = task.valid.all(copies)
    first = validate(state.theta, *valid)
    marks = {round(inner.total_steps * (i + 1) / evaluations) for i in range(evaluations)}
    curve, records = [], []
    for t in range(inner.total_steps):
        batch = task.train.batch(next(batches).to(device), copies)
        state, seen = step(state, layers, columns, hyper, table[t], counts[t], *batch)
        if record:
            records.append(seen)
        if t + 1 in marks:
            ratio = torch.log(validate(state.theta, *valid) / first)
            curve.append(torch.nan_to_num(ratio, nan=LOG_RATIO_RANGE[1]).clamp(*LOG_RATIO_RANGE))
    return Rollout(torch.stack(curve), first, records)


def _batch_indices(task: Task, inner: Inner) -> Iterator[Tensor]:
    """Samples of each step's batch, with replacement, (P, B)."""
    generator = torch.Generator().manual_seed(inner.batch_seed)
    own = slice(inner.first, inner.first + len(task.theta))
    shape = (inner.drawn or len(task.theta), task.batch_size)
    while True:
        yield torch.randint(task.train.inputs.shape[1], shape, generator=generator)[own]
