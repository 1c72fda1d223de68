"""One optimizer of a Trainer under MetaLR: its controller, its horizon, its steps and what others write into it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from metalr.core.controller import MetaLR
from metalr.core.guards import Guards
from metalr.core.lr_limits import LRLimits
from metalr.core.policy import LRPolicy
from metalr.lightning.horizon import Horizon, steps_per_epoch

if TYPE_CHECKING:
    import lightning as L


class Drive:
    """Drives one optimizer of a Trainer during a fit.

    Args:
        trainer: when the fit starts.
        pl_module: that is fitted.
        optimizer: one of `trainer.optimizers`.
        policy: as for `MetaLR`.
        guards: as for `MetaLR`.
        limits: of the rates.
        given: horizon that was asked for, optimizer steps; None for the Trainer's.
        state: of the controller in a checkpoint.
        pace: of the optimizer in a checkpoint.

    Attributes:
        controller: sets the rates.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        optimizer: Optimizer,
        policy: str | Path | LRPolicy,
        guards: Guards,
        limits: LRLimits,
        given: int | None,
        state: dict[str, Any] | None,
        pace: dict[str, Any] | None,
    ) -> None:
        done = 0 if state is None else int(state["step"])
        self._horizon = Horizon(trainer, pl_module.automatic_optimization, done, pace)
        anytime = isinstance(policy, LRPolicy) and policy.anytime
        total = None if anytime else given or self._horizon.planned(trainer, done)
        self._follows = given is None and total is not None
        self.controller = MetaLR(
            optimizer,
            total,
            policy,
            guards=guards,
            min_lr=limits.min_lr,
            max_lr=limits.max_lr,
            module=pl_module,
            steps_per_epoch=steps_per_epoch(trainer, pl_module.automatic_optimization),
        )
        if state is not None:
            self.controller.load_state_dict(state)
        self._decided_at: tuple[int, int] | None = None

    def has_decided(self, trainer: L.Trainer) -> bool:
        """Tests whether a decision was taken for the step that is under way or comes next."""
        return self._decided_at == self._place(trainer)

    def decide(self, trainer: L.Trainer, loss: Tensor) -> None:
        """Takes the decision of a step.

        Args:
            trainer: that is at the step.
            loss: of the step, a scalar.
        """
        if self._follows:
            self.controller.total_steps = self._horizon.at_step(trainer, self.controller.last_step)
        self.controller.step(loss)
        self._decided_at = self._place(trainer)

    def end_batch(self, trainer: L.Trainer) -> None:
        """Notes how far the optimizer is when a batch is over."""
        self._horizon.after_batch(trainer, self.controller.last_step)

    def pace(self) -> dict[str, Any]:
        """Returns the pace at which the optimizer steps, for a checkpoint."""
        return self._horizon.state_dict()

    def _place(self, trainer: L.Trainer) -> tuple[int, int]:
        """Counts the batches, and the steps that are over: under manual optimization, a batch may have several."""
        return trainer.fit_loop.total_batch_idx, self.controller.steps.finished
