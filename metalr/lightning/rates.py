"""Shows initial rates to finetuning callbacks, which read and write rates during a fit.

Rates that a finetuning callback reads or writes are initial rates. While one runs, each group's "lr" is lr_g(0): a
group that is added at a tenth of the first group's rate keeps that ratio, and a number is an initial rate, as in
`configure_optimizers`. Anything else that writes into a group sets its current rate; see
`metalr.core.groups.GroupRates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metalr.core.controller import MetaLR
from metalr.core.groups import ROUNDING
from metalr.core.sample import ParamGroup
from metalr.lightning.hooks import ReplacedHooks
from metalr.lightning.packages import instances

if TYPE_CHECKING:
    import lightning as L


def show_initial_rates(trainer: L.Trainer, controllers: Sequence[MetaLR], hooks: ReplacedHooks) -> None:
    """Has a Trainer's finetuning callbacks see, and set, initial rates at the start of an epoch.

    Args:
        trainer: whose callbacks they are.
        controllers: of its optimizers.
        hooks: that replaces theirs, until it is released.
    """
    for callback in instances(trainer, "callbacks.BaseFinetuning"):
        hooks.replace(callback, "on_train_epoch_start", _on_initial_rates(callback.on_train_epoch_start, controllers))


def _on_initial_rates(hook: Callable[..., None], controllers: Sequence[MetaLR]) -> Callable[..., None]:
    @wraps(hook)
    def on_initial_rates(*args: Any, **kwargs: Any) -> None:
        for controller in controllers:
            for group, base in zip(controller.optimizer.param_groups, controller.base_lrs, strict=True):
                _write(group, base)
        hook(*args, **kwargs)
        for controller in controllers:
            shown = controller.base_lrs
            controller.base_lrs = [
                _read(group, shown[i : i + 1]) for i, group in enumerate(controller.optimizer.param_groups)
            ]

    return on_initial_rates


def _read(group: ParamGroup, shown: Sequence[float]) -> float:
    """Returns the rate of a group, to the last bit the one that was shown where that was left as it was."""
    written = float(group["lr"])
    return next((rate for rate in shown if math.isclose(written, rate, rel_tol=ROUNDING)), written)


@torch.no_grad()
def _write(group: ParamGroup, rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
