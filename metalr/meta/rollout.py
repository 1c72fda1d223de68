"""Inner runs: R networks trained side by side, each at the rate that its own policy sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metalr.law import clock_table
from metalr.meta.optimizers import OPTIMIZERS, Hyper
from metalr.meta.step import RunState, Step, StepRecord, validation
from metalr.meta.task import Task
from metalr.policy import Layers

LOG_RATIO_RANGE = (-10.0, 1.5)
"""Range of log(validation loss / initial one) in the outer loss: a run that diverges scores as exp(1.5)."""


@dataclass(frozen=True)
class Inner:
    """How inner runs are trained.

    Attributes:
        optimizer: a name out of `metalr.meta.optimizers.OPTIMIZERS`.
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
        marks: steps done at these times, ascending, (E,).
        initial: validation loss before the first step, (R,).
        records: every step's record where asked for.
    """

    curve: Tensor
    marks: Tensor
    initial: Tensor
    records: list[StepRecord]

    def outer_loss(self, final_weight: float = 0.6) -> Tensor:
        """final_weight * last point of the curve + the rest * its mean, (R,)."""
        return curve_weights(len(self.curve), final_weight).to(self.curve) @ self.curve


def curve_weights(evaluations: int, final_weight: float) -> Tensor:
    """Weight of each point of a curve in the outer loss, (E,): they sum to 1."""
    weights = torch.full((evaluations,), (1.0 - final_weight) / evaluations)
    weights[-1] += final_weight
    return weights


class Unroll:
    """Inner runs that can be advanced piece by piece.

    Attributes:
        state: of the copies * P runs.
        step: steps done.

    Args:
        task: P instances. Copies of an instance share its initial parameters, batches and hyperparameters.
        inner: the inner training.
        copies: runs for each instance.
        evaluations: number of validation losses along the run, evenly spaced, the last at its end.
        compiled: run each step through torch.compile.
    """

    def __init__(
        self, task: Task, inner: Inner, copies: int = 1, evaluations: int = 10, compiled: bool = False
    ) -> None:
        device = task.theta.device
        self.task, self.inner, self.copies = task, inner, copies
        self.state = RunState.start(task.theta.repeat(copies, 1), OPTIMIZERS[inner.optimizer])
        self.step = 0
        self.marks = sorted({max(1, round(inner.total_steps * (i + 1) / evaluations)) for i in range(evaluations)})
        self._take = Step(task.net, inner.optimizer, compiled)
        self._validate = validation(task.net, compiled)
        self._hyper = Hyper(*(value.to(device) for value in inner.hyper.repeat(copies)))
        self._scale = task.scale.repeat(copies, 1)
        self._table = clock_table(inner.total_steps, inner.known, device)
        self._counts = torch.arange(inner.total_steps, device=device, dtype=torch.float32)
        self._batches = _batch_indices(task, inner)
        self._valid = task.valid.all(copies)
        with torch.no_grad():
            self.initial = self.validate()

    def validate(self) -> Tensor:
        """Validation losses of the runs as they are, (R,)."""
        return self._validate(self.state.theta * self._scale, *self._valid)

    def log_ratio(self) -> Tensor:
        """log(validation loss / initial one), within `LOG_RATIO_RANGE`, (R,)."""
        ratio = torch.log(self.validate() / self.initial)
        return torch.nan_to_num(ratio, nan=LOG_RATIO_RANGE[1]).clamp(*LOG_RATIO_RANGE)

    def advance(self, layers: Layers, columns: Tensor, push: Tensor | None = None) -> StepRecord:
        """One step of all runs; `push`, (R,), is added to the policy's output."""
        batch = self.task.train.batch(next(self._batches).to(self._counts.device), self.copies)
        push = torch.zeros_like(self.state.displacement) if push is None else push
        row, count = self._table[self.step], self._counts[self.step]
        self.state, seen = self._take(self.state, layers, columns, self._hyper, self._scale, row, count, batch, push)
        self.step += 1
        return seen

    def truncation(self, truncations: int) -> tuple[int, int]:
        """Number of the piece that begins here, out of so many evenly long ones, and the step where it ends."""
        total = self.inner.total_steps
        stops = [round(total * (i + 1) / truncations) for i in range(truncations)]
        return next((i, stop) for i, stop in enumerate(stops) if stop > self.step)

    def piece(self, layers: Layers, columns: Tensor, stop: int, final_weight: float) -> Tensor:
        """Advances to step `stop`: the part of the outer loss that lies in between, (R,)."""
        weights = curve_weights(len(self.marks), final_weight)
        loss = torch.zeros_like(self.state.displacement)
        while self.step < stop:
            self.advance(layers, columns)
            if self.step in self.marks:
                loss = loss + weights[self.marks.index(self.step)] * self.log_ratio()
        return loss

    def detach(self) -> None:
        """Cuts the graph of earlier steps."""
        self.state = self.state.map(Tensor.detach)

    def state_dict(self) -> dict[str, Any]:
        """Where the runs are; the task and the training are drawn again."""
        return {"copies": self.copies, "step": self.step, "state": self.state.tensors()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on runs of the same task that have not started."""
        tensors = iter(state["state"])
        self.state = self.state.map(lambda before: next(tensors).to(before.device))
        self.step = int(state["step"])
        for _ in range(self.step):
            next(self._batches)


@torch.no_grad()
def rollout(
    task: Task,
    inner: Inner,
    layers: Layers,
    columns: Tensor,
    copies: int = 1,
    evaluations: int = 10,
    compiled: bool = False,
    record: bool = False,
    push: Tensor | None = None,
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
        push: added to the policy's outputs, (T, R); none by default.
    """
    runs = Unroll(task, inner, copies, evaluations, compiled)
    curve, records = [], []
    for t in range(inner.total_steps):
        seen = runs.advance(layers, columns, None if push is None else push[t])
        if record:
            records.append(seen)
        if runs.step in runs.marks:
            curve.append(runs.log_ratio())
    return Rollout(torch.stack(curve), torch.tensor(runs.marks), runs.initial, records)


def _batch_indices(task: Task, inner: Inner) -> Iterator[Tensor]:
    """Samples of each step's batch, with replacement, (P, B)."""
    generator = torch.Generator().manual_seed(inner.batch_seed)
    own = slice(inner.first, inner.first + len(task.theta))
    shape = (inner.drawn or len(task.theta), task.batch_size)
    while True:
        yield torch.randint(task.train.inputs.shape[1], shape, generator=generator)[own]
