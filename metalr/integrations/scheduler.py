"""MetaLRScheduler: `MetaLR` in the shape of a torch scheduler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metalr.core.controller import MetaLR
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.policy import LRPolicy
from metalr.integrations.ranks import mean_over_ranks


class MetaLRScheduler(LRScheduler):
    """Sets the rate for code that knows `optimizer.step()` and `scheduler.step()` alone.

    A decision needs this step's gradient before the update, which is gone or spent when `scheduler.step()` is called:
    the last update would then hold the gradient that it is compared with. So the decision is taken inside of
    `optimizer.step()`, by a hook in front of the update, and acts on that very update. `scheduler.step()` may be called
    once a step, once an epoch, or never.

    What the hook cannot see is the loss. There are three ways to tell it:

    - `scheduler.observe(loss)` where the loss is computed; several before one step (accumulation) count as their mean.
      The rates are those of `MetaLR.step(loss)`.
    - `optimizer.step(closure)`: the closure's own loss is taken, as in a Lightning Trainer, whose
      `configure_optimizers` may return this scheduler without further ado. With AMP's GradScaler, which takes no
      closure, use `observe`.
    - `scheduler.step(loss)` after the update, as ReduceLROnPlateau is called. **Then the loss lags one step**: a
      decision reads the present gradient beside the loss of the step before. The first step, before which no loss is
      known, is decided for itself: one loss alone says nothing to the policy, whose features know neither its unit nor
      its zero. The features of the run begin with the second step.

    Losses are averaged over the ranks of torch.distributed. Gradients are seen as they are in `optimizer.step()`, that
    is after clipping.

    Args:
        optimizer: as for `MetaLR`; its rates are the initial ones.
        total_steps: horizon in optimizer steps; None for the anytime mode.
        policy: as for `MetaLR`.
        guards: as for `MetaLR`.

    Attributes:
        meta_lr: the controller, for `explain()`, `events` and the like.

    Raises:
        ValueError, FileNotFoundError: as `MetaLR` does.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        policy: str | Path | LRPolicy = "default",
        guards: Guards = DEFAULT_GUARDS,
    ) -> None:
        self.meta_lr = MetaLR(optimizer, total_steps, policy, guards=guards)
        self._guards = guards
        self._told: list[Tensor] = []
        self._loss: Tensor | None = None
        self._steps = 0
        super().__init__(optimizer)
        optimizer.register_step_pre_hook(self._before_step)

    def observe(self, loss: Tensor | float) -> None:
        """Tells the loss of the step that comes: a scalar, of either sign."""
        self._told.append(torch.as_tensor(loss).detach().float().reshape(()))

    def step(self, loss: Tensor | float | None = None) -> None:
        """Takes the loss of the step that was; without one, there is nothing left to do.

        Raises:
            RuntimeError: when an optimizer step was taken and nobody ever told a loss.
        """
        if loss is not None:
            self.observe(loss)
        elif self._steps > 0 and self._loss is None:
            raise RuntimeError(
                "MetaLRScheduler was told no loss: call scheduler.observe(loss) before optimizer.step(), give "
                "optimizer.step a closure that returns the loss, or call scheduler.step(loss)"
            )
        self.last_epoch += 1

    def get_last_lr(self) -> list[float | Tensor]:
        """The rate of each group as set last."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    get_lr = get_last_lr

    def _before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Decides; where there is a closure, right after it, for it makes the gradients."""
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._decide()
            return None
        return args[:1], kwargs | {"closure": self._deciding(closure)}

    def _deciding(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def decided() -> Any:
            loss = closure()
            if loss is not None and not self._told:
                self.observe(loss)
            if loss is not None or self._told:  # Lightning's closure gives None for a batch that is left out
                self._decide()
            return loss

        return decided

    def _decide(self) -> None:
        if self._told:
            self._loss, self._told = mean_over_ranks(torch.stack(self._told).mean()), []
        self._steps += 1
        if self._loss is not None:
            self.meta_lr.step(self._loss)
        else:
            first = MetaLR(self.optimizer, self.meta_lr.total_steps, self.meta_lr.policy, guards=self._guards)
            first.step(0.0)

    def state_dict(self) -> dict[str, Any]:
        """The controller's state, and the losses that were told: tensors, numbers and strings only."""
        losses = None if self._loss is None else float(self._loss)
        return {
            "meta_lr": self.meta_lr.state_dict(),
            "told": [float(loss) for loss in self._told],
            "loss": losses,
            "steps": self._steps,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores `state_dict`; the optimizer's own state may be loaded before it or after."""
        self.meta_lr.load_state_dict(state_dict["meta_lr"])
        self._told = [torch.tensor(loss) for loss in state_dict["told"]]
        self._loss = None if state_dict["loss"] is None else torch.tensor(state_dict["loss"])
        self._steps = int(state_dict["steps"])
        self.last_epoch = int(state_dict["last_epoch"])
