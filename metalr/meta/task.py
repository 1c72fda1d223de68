"""What an inner run is made of: what is trained, how, and what of it the policy is told at each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalr.meta.optimizers import Hyper


@dataclass(frozen=True)
class InnerTraining:
    """How inner runs are trained.

    Attributes:
        optimizer: a name out of `metalr.meta.optimizers.HYPER`.
        hyper: hyperparameters of the P instances, (P, 1) each.
        total_steps: horizon T, steps.
        anytime: whether the runs are without a horizon: the policy does not see T.
        batch_seed: of the order of batches.
        first: position of the first instance among those that batches are drawn for.
        drawn: number of instances that batches are drawn for; 0 for just these.
    """

    optimizer: str
    hyper: Hyper
    total_steps: int
    anytime: bool = False
    batch_seed: int = 0
    first: int = 0
    drawn: int = 0

    def select(self, instances: slice) -> InnerTraining:
        """The training of some of the instances, with the batches that they have among all."""
        first, _, _ = instances.indices(len(self.hyper.lr))
        drawn = self.drawn or len(self.hyper.lr)
        return replace(self, hyper=self.hyper.select(instances), first=self.first + first, drawn=drawn)


class Measured(NamedTuple):
    """Loss, |g|, |w|, |u| and <g, u> of each run, (R,); u is the direction applied last."""

    loss: Tensor
    grad_norm: Tensor
    param_norm: Tensor
    direction_norm: Tensor
    product: Tensor


class Optimizees(ABC):
    """What R inner runs train, side by side (an *optimizee* is what a learned optimizer trains: Andrychowicz 2016).

    `metalr.meta.Unroll` calls `measure`, takes the decision, and calls `update` with the rates, step by step: features,
    policy and law are its own, and the same for whatever is trained.

    Attributes:
        kind: +1 where an update is a gradient or a sum of them, -1 otherwise, as `Signals.optimizer`, shape ().
        first: |u| that the signals assume before the first update, shape (); 0 stands for |g|.
        initial_lr: lr(0), (R,).
    """

    kind: Tensor
    first: Tensor
    initial_lr: Tensor

    @abstractmethod
    def measure(self) -> Measured:
        """The gradient of the step that comes, and what is measured of it."""

    @abstractmethod
    def update(self, lr: Tensor) -> None:
        """Applies the gradient measured last, at rates (R,)."""

    @abstractmethod
    def validate(self) -> Tensor:
        """Validation losses of the runs as they are, (R,)."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Where the runs are."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on runs of the same problem that have not started."""

    def detach(self) -> None:  # noqa: B027 - most have no graph
        """Cuts the graph of earlier steps, where there is one."""


class Task(ABC):
    """P instances of something to train, with their data."""

    @abstractmethod
    def __len__(self) -> int:
        """P."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the policy's inputs are made."""

    @abstractmethod
    def select(self, instances: slice | Tensor) -> Task:
        """Some of the instances, by a slice or by their numbers."""

    @abstractmethod
    def to(self, device: torch.device) -> Task:
        """The same on a device."""

    @abstractmethod
    def start(self, inner: InnerTraining, copies: int, compiled: bool) -> Optimizees:
        """Begins `copies` runs of each instance, copy by copy, which share everything but their rates.

        Args:
            inner: the inner training.
            copies: runs for each instance.
            compiled: run each step through torch.compile, where there is something to compile.
        """

    def reparameterised(self, nats: float, generator: torch.Generator) -> Task:
        """The same with its parameters in other units, see `Task.reparameterised`; itself where they have none."""
        return self
