"""Trains a part of a network."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import lightning as L
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Freeze(L.Callback):
    r"""Freezes some parameters, such as those of a pretrained body under a fresh head.

    Batch normalisation with frozen parameters also keeps its running statistics.

        python train.py fit --config configs/glue_bert.yaml --trainer.callbacks+=callbacks.Freeze \
            --trainer.callbacks.parameters='["network.bert.*"]'

    Args:
        parameters: their names in the LightningModule, or patterns with `*`, `?` and `[...]`.

    Raises:
        ValueError: for no names; on fit, for a pattern that no parameter has, or where none is left to train.
    """

    def __init__(self, parameters: Sequence[str]) -> None:
        if not parameters or isinstance(parameters, str):
            raise ValueError(f"parameters={parameters!r}: give a list of one name or pattern or more")
        self.parameters = list(parameters)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Freezes, before the optimizer is made."""
        if stage != "fit":
            return
        named = dict(pl_module.named_parameters())
        for pattern in self.parameters:
            found = [name for name in named if fnmatchcase(name, pattern)]
            if not found:
                heads = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) + ".*" for name in named))
                raise ValueError(f"parameters: {pattern!r} is no parameter's name; there are {heads}")
            for name in found:
                named[name].requires_grad_(False)
        if not any(parameter.requires_grad for parameter in named.values()):
            raise ValueError(f"parameters={self.parameters} freezes all of the network: leave a part to train")
        for module in pl_module.modules():
            if isinstance(module, _BatchNorm) and _frozen(module):
                module.eval()


def _frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)
