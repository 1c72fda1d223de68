"""MetaLRScheduler: `MetaLR` in the shape of a torch scheduler."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from metalr.core.controller import MetaLR
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.lr_limits import Limit
from metalr.core.policy import LRPolicy
from metalr.integrations.ranks import mean_over_ranks


class MetaLRScheduler(LRScheduler):
    """Sets the rate for code that only calls `optimizer.step()` and `scheduler.step()`.

    A decision needs this step's gradient before the update, which is gone or spent when `scheduler.step()` is called:
    the last update would already contain the gradient that it is compared with. So the decision is taken inside of
    `optimizer.step()`, by a hook in front of the update, and acts on that very update: one decision a step, however
    often the optimizer calls its closure. `scheduler.step()` may be called once a step, once an epoch, or never.

    What the hook cannot see is the loss. There are three ways to give it:

    - `scheduler.observe(loss)` where the loss is computed; several before one step (accumulation) count as their mean.
      The rates are those of `MetaLR.step(loss)`.
    - `optimizer.step(closure)`: the closure's own loss is taken, as in a Lightning Trainer, whose
      `configure_optimizers` may return this scheduler as it is. With AMP's GradScaler, which takes no closure, use
      `observe`.
    - `scheduler.step(loss)` after the update, as ReduceLROnPlateau is called. **Then the loss lags one step**: a
      decision reads the present gradient beside the loss of the step before. The first step, before which no loss is
      known, is decided for itself: one loss alone says nothing to the policy, whose features know neither its unit nor
      its zero. The features of the run begin with the second step.

    Losses are averaged over the ranks of torch.distributed. Gradients are seen as they are in `optimizer.step()`, that
    is after clipping.

    The optimizer holds the scheduler weakly: deleted, released, or replaced by a new one (or a new `MetaLR`) on the
    same optimizer, it sets no rate any more.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = torch.optim.SGD([weight], lr=0.1)
        >>> scheduler = MetaLRScheduler(optimizer, total_steps=100)
        >>> loss = weight.square().sum()
        >>> loss.backward()
        >>> scheduler.observe(loss)
        >>> optimizer.step()
        >>> scheduler.step()

    Args:
        optimizer: as for `MetaLR`; its rates are the initial ones.
        total_steps: horizon in optimizer steps; None for the anytime mode, as are infinity and -1, which Lightning's
            `estimated_stepping_batches` has for a run without an end.
        policy: as for `MetaLR`.
        guards: as for `MetaLR`.
        min_lr: smallest rate, as for `MetaLR`.
        max_lr: largest rate, as for `MetaLR`.
        module: whose buffers go back with the weights, as for `MetaLR`.
        steps_per_epoch: optimizer steps of one pass over the training data, as for `MetaLR`.

    Attributes:
        meta_lr: the controller, for `explain()`, `events` and the like.

    Raises:
        ValueError, FileNotFoundError: as `MetaLR` does.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: float | None = None,
        policy: str | Path | LRPolicy = "default",
        guards: Guards = DEFAULT_GUARDS,
        min_lr: Limit = None,
        max_lr: Limit = None,
        module: nn.Module | None = None,
        steps_per_epoch: float | None = None,
    ) -> None:
        self.meta_lr = MetaLR(
            optimizer,
            total_steps,
            policy,
            guards=guards,
            min_lr=min_lr,
            max_lr=max_lr,
            module=module,
            steps_per_epoch=steps_per_epoch,
        )
        self._observed: list[Tensor] = []
        self._loss: Tensor | None = None
        self._steps = 0
        super().__init__(optimizer)
        self.meta_lr.steps.decide = weakref.WeakMethod(self._decide)

    def observe(self, loss: Tensor | float) -> None:
        """Takes the loss of the step that comes: a scalar, of either sign."""
        self.meta_lr.steps.outside()
        self._observed.append(torch.as_tensor(loss).detach().float().reshape(()))

    def validation(self, loss: Tensor | float) -> None:
        """Gives a validation loss, a scalar, whenever there is one: see `MetaLR.validation`."""
        device = self.optimizer.param_groups[0]["params"][0].device  # where the ranks can reduce
        self.meta_lr.validation(mean_over_ranks(torch.as_tensor(loss).detach().float().to(device)))

    def step(self, loss: Tensor | float | None = None) -> None:
        """Takes the loss of the step that was; without one, there is nothing left to do.

        Raises:
            RuntimeError: when an optimizer step was taken and no loss was ever given, or when this scheduler was
                released or replaced.
        """
        self.meta_lr.steps.outside()
        if loss is not None:
            self.observe(loss)
        elif self._steps > 0 and self._loss is None:
            raise RuntimeError(
                "MetaLRScheduler was given no loss: call scheduler.observe(loss) before optimizer.step(), give "
                "optimizer.step a closure that returns the loss, or call scheduler.step(loss)"
            )
        self.last_epoch += 1

    def release(self) -> None:
        """Gives the optimizer up, so that another scheduler may set its rates; they stay as they are."""
        self.meta_lr.release()

    def get_last_lr(self) -> list[float | Tensor]:
        """Returns the rate of each group as set last."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    get_lr = get_last_lr

    def _decide(self, in_closure: bool, loss: Any) -> None:
        """Decides on this step, with the loss of its closure or those that were observed."""
        if in_closure and loss is None and not self._observed:
            return  # Lightning's closure gives None for a batch that is left out
        if loss is not None and not self._observed:
            self._observed.append(torch.as_tensor(loss).detach().float().reshape(()))
        if self._observed:
            self._loss, self._observed = mean_over_ranks(torch.stack(self._observed).mean()), []
        self._steps += 1
        if self._loss is not None:
            self.meta_lr.step(self._loss)
        else:
            self.meta_lr.set_first_rates()

    def state_dict(self) -> dict[str, Any]:
        """Returns the controller's state, and the losses that were observed: tensors, numbers and strings only."""
        losses = None if self._loss is None else float(self._loss)
        return {
            "meta_lr": self.meta_lr.state_dict(),
            "observed": [float(loss) for loss in self._observed],
            "loss": losses,
            "steps": self._steps,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores `state_dict`; the optimizer's own state may be loaded before it or after."""
        self.meta_lr.load_state_dict(state_dict["meta_lr"])
        self._observed = [torch.tensor(loss) for loss in state_dict["observed"]]
        self._loss = None if state_dict["loss"] is None else torch.tensor(state_dict["loss"])
        self._steps = int(state_dict["steps"])
        self.last_epoch = int(state_dict["last_epoch"])
