"""FabricMetaLR: `MetaLR` in a loop of Lightning Fabric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.controller import MetaLR
from metalr.core.grad_scaler import skips
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.policy import LRPolicy


class FabricMetaLR(MetaLR):
    """`MetaLR` that averages the loss over Fabric's ranks and minds its GradScaler.

    In a Fabric loop:

        model, optimizer = fabric.setup(model, optimizer)
        meta_lr = FabricMetaLR(fabric, optimizer, total_steps=len(loader))
        for x, y in loader:
            loss = criterion(model(x), y)
            optimizer.zero_grad(); fabric.backward(loss)
            meta_lr.step(loss)             # before fabric.clip_gradients, so that the policy sees whole gradients
            optimizer.step()

    It can be given to `fabric.save` and `fabric.load` beside model and optimizer.

    Args:
        fabric: that set model and optimizer up.
        optimizer: as it came back from `fabric.setup`.
        total_steps: horizon in optimizer steps; None for the anytime mode.
        policy: as for `MetaLR`.
        guards: as for `MetaLR`.
    """

    def __init__(
        self,
        fabric: L.Fabric,
        optimizer: Any,
        total_steps: int | None = None,
        policy: str | Path | LRPolicy = "default",
        guards: Guards = DEFAULT_GUARDS,
    ) -> None:
        raw: Optimizer = getattr(optimizer, "optimizer", optimizer)  # Fabric's wrapper only passes calls on
        super().__init__(raw, total_steps, policy, guards=guards)
        self._fabric = fabric

    def step(self, loss: Tensor | float) -> None:
        """As `MetaLR.step`, on every rank with its own loss; a step that the GradScaler will skip is left out."""
        scaler = getattr(self._fabric.strategy.precision, "scaler", None)
        if scaler is not None and scaler.is_enabled() and skips(scaler, self.optimizer):
            return
        mean = self._fabric.all_reduce(torch.as_tensor(loss).detach().float(), reduce_op="mean")
        super().step(mean if isinstance(mean, Tensor) else loss)
