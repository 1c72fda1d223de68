"""FabricMetaLR: `MetaLR` in a loop of Lightning Fabric."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core.controller import MetaLR
from metalr.core.grad_scaler import skips
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.lr_limits import Limit
from metalr.core.policy import LRPolicy

if TYPE_CHECKING:
    import lightning as L


class FabricMetaLR(MetaLR):
    """Sets the rates in a Fabric loop as `MetaLR` does, with the loss averaged over the ranks.

    Steps that Fabric's GradScaler will skip are left out. Fabric may be that of `lightning` or of `lightning_fabric`.
    Call `step` before `fabric.clip_gradients`, so that the policy sees whole gradients. The controller can be given to
    `fabric.save` and `fabric.load` beside model and optimizer.

    Args:
        fabric: that set model and optimizer up.
        optimizer: as returned by `fabric.setup`.
        total_steps: horizon, optimizer steps, 1 or more; None for the anytime mode.
        policy: as for `MetaLR`.
        guards: as for `MetaLR`.
        min_lr: smallest rate, as for `MetaLR`.
        max_lr: largest rate, as for `MetaLR`.
        module: whose buffers go back with the weights, as for `MetaLR`.
        steps_per_epoch: optimizer steps of one pass over the training data, as for `MetaLR`.

    Raises:
        ValueError, FileNotFoundError: as `MetaLR` does.

    Example:
        >>> import lightning as L, torch
        >>> from metalr.integrations.fabric import FabricMetaLR
        >>> fabric = L.Fabric(accelerator="cpu")
        >>> model = torch.nn.Linear(8, 3)
        >>> model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        >>> batches = [(torch.randn(16, 8), torch.randint(3, (16,))) for _ in range(10)]
        >>> meta_lr = FabricMetaLR(fabric, optimizer, total_steps=len(batches))
        >>> for x, y in batches:
        ...     loss = torch.nn.functional.cross_entropy(model(x), y)
        ...     optimizer.zero_grad()
        ...     fabric.backward(loss)
        ...     meta_lr.step(loss)
        ...     step = optimizer.step()
        >>> meta_lr.last_step
        10
    """

    def __init__(
        self,
        fabric: L.Fabric,
        optimizer: Any,
        total_steps: int | None = None,
        policy: str | Path | LRPolicy = "default",
        guards: Guards = DEFAULT_GUARDS,
        min_lr: Limit = None,
        max_lr: Limit = None,
        module: nn.Module | None = None,
        steps_per_epoch: float | None = None,
    ) -> None:
        raw: Optimizer = getattr(optimizer, "optimizer", optimizer)  # Fabric's wrapper only passes calls on
        super().__init__(
            raw,
            total_steps,
            policy,
            guards=guards,
            min_lr=min_lr,
            max_lr=max_lr,
            module=module,
            steps_per_epoch=steps_per_epoch,
        )
        self._fabric = fabric

    def step(self, loss: Tensor | float) -> None:
        """Decides as `MetaLR.step` does; called on every rank with its own loss.

        Args:
            loss: of this rank's batch, a scalar; its mean over the ranks is decided on.

        Raises:
            ValueError, RuntimeError, DivergenceError: as `MetaLR.step` does.
        """
        scaler = getattr(self._fabric.strategy.precision, "scaler", None)
        if scaler is not None and scaler.is_enabled() and skips(scaler, self.optimizer):
            return
        super().step(self._mean(loss))

    def validation(self, loss: Tensor | float) -> None:
        """Gives a validation loss as `MetaLR.validation` does; called on every rank with its own.

        Args:
            loss: a scalar, of which the mean over the ranks is read.

        Raises:
            ValueError: for a loss that is no scalar.
        """
        super().validation(self._mean(loss))

    def _mean(self, loss: Tensor | float) -> Tensor | float:
        """Averages over the ranks; a copy, since the reduction is in place."""
        mean = self._fabric.all_reduce(torch.as_tensor(loss).detach().float().clone(), reduce_op="mean")
        return mean if isinstance(mean, Tensor) else loss
