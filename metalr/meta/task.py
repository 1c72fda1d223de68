"""The contract of inner runs: a task, how it is trained, and what the policy measures of it at each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metalr.meta.hyperparameters import Hyperparameters


@dataclass(frozen=True)
class InnerTraining:
    """Describes how the inner runs of P instances are trained.

    Attributes:
        optimizer: a name out of `metalr.meta.hyperparameters.PRIORS`.
        hyper: hyperparameters of the P instances, (P, 1) each.
        total_steps: horizon T, steps.
        anytime: whether the runs are without a horizon: the policy does not see T.
        batch_seed: of the order of batches.
        validation_interval: steps from one validation loss that the policy is shown to the next; None for never. Where
            there is one, a half of the validation samples is shown, and the outer loss is of the other half.
        epochs_known: whether the policy is told how many steps make a pass over the training samples.
    """

    optimizer: str
    hyper: Hyperparameters
    total_steps: int
    anytime: bool = False
    batch_seed: int = 0
    validation_interval: int | None = None
    epochs_known: bool = False

    def __post_init__(self) -> None:
        if self.validation_interval is not None and self.validation_interval < 1:
            raise ValueError(
                f"validation_interval={self.validation_interval}: give a number of steps, or None for never"
            )


class Measured(NamedTuple):
    """Holds the measurements of one step of R runs, (R,) each.

    Attributes:
        loss: of the batch.
        grad_norm: |g|.
        param_norm: |w|.
        direction_norm: |u|, of the direction applied last.
        product: <g, u>.
        travel: |w - w_0|.
        origin_product: <g, w_0 - w>.
        sum_norm: |s|, of the sum of all gradients so far.
        sum_absolute: |s|_1.
    """

    loss: Tensor
    grad_norm: Tensor
    param_norm: Tensor
    direction_norm: Tensor
    product: Tensor
    travel: Tensor
    origin_product: Tensor
    sum_norm: Tensor
    sum_absolute: Tensor


class Optimizees(ABC):
    """Trains R models side by side (an *optimizee* is what a learned optimizer trains: Andrychowicz et al. 2016).

    Step by step, `metalr.meta.Unroll` calls `measure`, takes the policy's decision, and calls `update` with the rates.
    Features, policy and update rule are the same whatever is trained.

    Attributes:
        is_sgd: whether an update is a gradient or a sum of gradients, bool, shape ().
        elements: number of parameters of a run, float, shape ().
        initial_lr: lr(0), (R,).
        weight_structure: of the first weights, see `metalr.core.weight_structure`, (R,).
        steps_per_epoch: steps of one pass over the training samples; 0 where the policy is not told, or where there is
            no such thing, (R,).
    """

    is_sgd: Tensor
    elements: Tensor
    initial_lr: Tensor
    weight_structure: Tensor
    steps_per_epoch: Tensor

    @abstractmethod
    def measure(self) -> Measured:
        """Computes the gradient of the coming step, and what the policy reads of it."""

    @abstractmethod
    def update(self, lr: Tensor) -> None:
        """Applies the gradient measured last, at rates (R,)."""

    @abstractmethod
    def validate(self) -> Tensor:
        """Computes the validation losses of the runs as they are, of which the outer loss is made, (R,)."""

    @abstractmethod
    def shown_validation(self) -> Tensor:
        """Computes the validation losses that the policy is shown, on samples that `validate` does not use, (R,).

        It is called only where the inner training has a `validation_interval`.
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the runs."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on runs of the same task that have not started."""

    def detach(self) -> None:  # noqa: B027 - most have no graph
        """Detaches the runs from the graph of earlier steps, where there is one."""


class Task(ABC):
    """Describes P instances of something to train, with their data."""

    @abstractmethod
    def __len__(self) -> int:
        """Returns P."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Device of the runs, and of the policy that sets their rates."""

    @abstractmethod
    def select(self, instances: slice | Tensor) -> Task:
        """Selects some of the instances, by a slice or by their numbers."""

    @abstractmethod
    def to(self, device: torch.device) -> Task:
        """Moves the task to a device."""

    @abstractmethod
    def start(self, inner: InnerTraining, copies: int, compiled: bool) -> Optimizees:
        """Begins `copies` runs of each instance, one copy after another; they differ by their rates alone.

        Args:
            inner: the inner training.
            copies: runs for each instance.
            compiled: run each step through torch.compile, where there is something to compile.
        """

    def reparameterised(self, bound: float, generator: torch.Generator) -> Task:
        """Expresses the parameters in other units, see `NetworkTask.reparameterised`; by default changes nothing."""
        return self
