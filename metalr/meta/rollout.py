"""Inner runs: R optimizees trained side by side, at rates that a policy sets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metalr.core.features import FeatureState
from metalr.core.policy import PolicyFunction
from metalr.core.update_rule import clock_table
from metalr.meta.batched_decision import RunConstants, RunState, StepRecord, decide_part
from metalr.meta.task import InnerTraining, Task

LOG_RATIO_RANGE = (-10.0, 1.5)
"""Range of log(validation loss / initial one) in the outer loss: a run that diverges scores as exp(1.5)."""


@dataclass(frozen=True)
class Rollout:
    """Holds the result of R inner runs.

    Attributes:
        curve: log(validation loss / initial one), within `LOG_RATIO_RANGE`, at E evaluations, (E, R).
        evaluation_steps: number of steps before each evaluation, ascending, (E,).
        initial: validation loss before the first step, (R,).
        records: of every step, with `record=True`; else empty.
    """

    curve: Tensor
    evaluation_steps: Tensor
    initial: Tensor
    records: list[StepRecord]

    def outer_loss(self, final_weight: float = 0.6) -> Tensor:
        """Computes final_weight * last point of the curve + (1 - final_weight) * its mean, (R,)."""
        return curve_weights(len(self.curve), final_weight).to(self.curve) @ self.curve


def curve_weights(evaluations: int, final_weight: float) -> Tensor:
    """Computes the weight of each evaluation in the outer loss, (E,), with a sum of 1."""
    weights = torch.full((evaluations,), (1.0 - final_weight) / evaluations)
    weights[-1] += final_weight
    return weights


class Unroll:
    """Advances R = copies * P inner runs step by step.

    Args:
        task: P instances. Copies of an instance share initial parameters, batches and hyperparameters.
        inner: the inner training.
        copies: runs for each instance.
        evaluations: number of evaluations along the run, evenly spaced, the last at its end.
        compiled: run each step through torch.compile.

    Attributes:
        optimizees: that the runs train.
        step: steps done.
        evaluation_steps: number of steps before each evaluation, ascending.
        initial: validation loss before the first step, (R,).
    """

    def __init__(
        self, task: Task, inner: InnerTraining, *, copies: int = 1, evaluations: int = 10, compiled: bool = False
    ) -> None:
        self.inner, self.copies = inner, copies
        self.optimizees = task.start(inner, copies, compiled)
        self.step = 0
        self.evaluation_steps = sorted(
            {max(1, round(inner.total_steps * (i + 1) / evaluations)) for i in range(evaluations)}
        )
        self._state = RunState.empty(copies * len(task), task.device)
        # What waits for a decision, NaN for nothing; None where the policy is never shown any.
        self._shown = None if inner.validation_interval is None else torch.full_like(self.log_multiplier, math.nan)
        self._constants = RunConstants(
            self.optimizees.is_sgd,
            self.optimizees.elements,
            self.optimizees.initial_lr,
            self.optimizees.weight_structure,
            self.optimizees.steps_per_epoch,
        )
        self._decide = decide_part(compiled)
        self._table = clock_table(inner.total_steps, inner.anytime, task.device)
        with torch.no_grad():
            self.initial = self.optimizees.validate()

    @property
    def log_multiplier(self) -> Tensor:
        """Log multiplier s of each run, nats, (R,)."""
        return self._state.log_multiplier

    def log_ratio(self) -> Tensor:
        """Computes log(validation loss / initial one), within `LOG_RATIO_RANGE`, (R,)."""
        ratio = torch.log(self.optimizees.validate() / self.initial)
        return torch.nan_to_num(ratio, nan=LOG_RATIO_RANGE[1]).clamp(*LOG_RATIO_RANGE)

    def advance(self, policy: PolicyFunction, action_noise: Tensor | None = None) -> StepRecord:
        """Makes one step of all runs.

        Args:
            policy: one for all runs, or one for each.
            action_noise: added to the policy's output, (R,); none by default.
        """
        noise = torch.zeros_like(self.log_multiplier) if action_noise is None else action_noise
        interval = self.inner.validation_interval
        if interval is not None and self.step > 0 and self.step % interval == 0:
            self._shown = self.optimizees.shown_validation()
        self._state, record = self._decide(
            policy,
            state=self._state,
            measured=self.optimizees.measure(),
            constants=self._constants,
            clock_row=self._table[self.step],
            action_noise=noise,
            validation=self._shown,
        )
        if self._shown is not None:
            self._shown = self._shown.where(~record.finite, math.nan)
        self.optimizees.update(record.lr)
        self.step += 1
        return record

    def truncation(self, truncations: int) -> tuple[int, int]:
        """Returns the number, from 0, of the truncation at this step, and the step where it ends.

        Args:
            truncations: number of parts, of even length, of the whole run.
        """
        total = self.inner.total_steps
        stops = [round(total * (i + 1) / truncations) for i in range(truncations)]
        return next((i, stop) for i, stop in enumerate(stops) if stop > self.step)

    def advance_to(self, stop: int, policy: PolicyFunction, final_weight: float) -> Tensor:
        """Advances to step `stop`, and returns the part of the outer loss that lies in between, (R,)."""
        weights = curve_weights(len(self.evaluation_steps), final_weight)
        loss = torch.zeros_like(self.log_multiplier)
        while self.step < stop:
            self.advance(policy)
            if self.step in self.evaluation_steps:
                loss = loss + weights[self.evaluation_steps.index(self.step)] * self.log_ratio()
        return loss

    def detach(self) -> None:
        """Detaches the runs from the graph of earlier steps."""
        self.optimizees.detach()
        self._state = self._state.map(Tensor.detach)
        self._shown = self._shown if self._shown is None else self._shown.detach()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the runs, without the task and the inner training."""
        return {
            "copies": self.copies,
            "step": self.step,
            "features": list(self._state.features),
            "log_multiplier": self.log_multiplier,
            "shown_validation": self._shown,
            "optimizees": self.optimizees.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on runs of the same task that have not started."""
        device = self.log_multiplier.device
        self.step = int(state["step"])
        stored = RunState(FeatureState(*state["features"]), state["log_multiplier"])
        self._state = stored.map(lambda part: part.to(device))
        self._shown = None if self._shown is None else state["shown_validation"].to(device)
        self.optimizees.load_state_dict(state["optimizees"])


@torch.no_grad()
def rollout(
    task: Task,
    inner: InnerTraining,
    policy: PolicyFunction,
    *,
    copies: int = 1,
    evaluations: int = 10,
    compiled: bool = False,
    record: bool = False,
    action_noise: Tensor | None = None,
) -> Rollout:
    """Makes copies * P inner runs from start to end.

    Example:
        >>> import torch
        >>> from metalr import LRPolicy
        >>> from metalr.meta import Hyperparameters, InnerTraining, rollout
        >>> from metalr.meta.families import QuadraticTasks
        >>> task = QuadraticTasks().sample(3, torch.Generator().manual_seed(0))
        >>> inner = InnerTraining("sgd", Hyperparameters.of(torch.full((3, 1), 0.1), beta1=0.9), total_steps=20)
        >>> rollout(task, inner, LRPolicy.load("default").function(), copies=2, evaluations=5).curve.shape
        torch.Size([5, 6])

    Args:
        task: P instances. Copies of an instance share initial parameters, batches and hyperparameters.
        inner: the inner training.
        policy: one for all runs, or copies * P of them, one copy after another.
        copies: runs for each instance.
        evaluations: number of evaluations along the run, evenly spaced, the last at its end.
        compiled: run each step through torch.compile; it pays off after some 100,000 inner steps on one network.
        record: keep a record of every step.
        action_noise: added to the policy's outputs, (T, R); none by default.
    """
    runs = Unroll(task, inner, copies=copies, evaluations=evaluations, compiled=compiled)
    curve, records = [], []
    for t in range(inner.total_steps):
        made = runs.advance(policy, None if action_noise is None else action_noise[t])
        if record:
            records.append(made)
        if runs.step in runs.evaluation_steps:
            curve.append(runs.log_ratio())
    return Rollout(torch.stack(curve), torch.tensor(runs.evaluation_steps), runs.initial, records)
