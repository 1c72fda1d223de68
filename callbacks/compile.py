"""Compile: compiles a LightningModule with torch.compile."""

from __future__ import annotations

import lightning as L


class Compile(L.Callback):
    """Compiles the LightningModule with `torch.compile`, before the first batch.

    Names in checkpoints do not change, so a run can be resumed with or without it.

        python train.py fit --config configs/cifar10_resnet50.yaml --trainer.callbacks+=callbacks.Compile

    Args:
        backend: of torch.compile.
        mode: of torch.compile, such as "reduce-overhead"; None for its default.
        dynamic: of torch.compile, whether shapes may vary; None to detect it.
    """

    def __init__(self, backend: str = "inductor", mode: str | None = None, dynamic: bool | None = None) -> None:
        self.options = {"backend": backend, "mode": mode, "dynamic": dynamic}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Marks the module for compilation, once; the first batch triggers it."""
        if pl_module._compiled_call_impl is None:
            pl_module.compile(**self.options)
