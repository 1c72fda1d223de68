"""Compiles a network."""

from __future__ import annotations

import lightning as L


class Compile(L.Callback):
    """Has torch.compile compile the LightningModule's `forward`, which its steps call.

    Names in checkpoints stay as they are, so a run may go on with it or without.

        python train.py fit --config configs/cifar10_resnet50.yaml --trainer.callbacks+=callbacks.Compile

    Args:
        backend: of torch.compile.
        mode: of torch.compile, such as "reduce-overhead"; None for its default.
        dynamic: whether shapes may vary; None to find out.
    """

    def __init__(self, backend: str = "inductor", mode: str | None = None, dynamic: bool | None = None) -> None:
        self.options = {"backend": backend, "mode": mode, "dynamic": dynamic}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compiles, once; the work is done when the first batch comes."""
        if pl_module._compiled_call_impl is None:
            pl_module.compile(**self.options)
