"""Rates that others read or write while a run goes on: finetuning callbacks, rate finders, a module's own code.

The rate of group g at step t is lr_g(0) * factor(t), with one factor for all groups. Two rules tell what a rate that
somebody else writes into a group means, so that what was asked for relative to the other groups is kept:

- A finetuning callback works on initial rates: while it runs, each group shows lr_g(0). A tenth of the first group's
  rate is a tenth of it for good, and a number is an initial rate, as in `configure_optimizers`.
- Anything else works on present rates: a rate r that is written at step t, also into a group that is new, is applied as
  of then, and goes on from there: lr_g(0) becomes r / factor(t).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metalr.core.controller import MetaLR
from metalr.lightning.hooks import ReplacedHooks
from metalr.lightning.packages import instances, rank_zero_info, rank_zero_warn

if TYPE_CHECKING:
    import lightning as L

_ROUNDING = 1e-6
"""Relative difference up to which two rates are the same one: a tensor's is rounded to single precision."""


class RewrittenRates:
    """Takes up rates that were written into an optimizer's groups since the last decision.

    Args:
        controller: of the optimizer.
    """

    def __init__(self, controller: MetaLR) -> None:
        self._controller = controller
        self._seen: list[tuple[Any, int]] = []
        self._last = -1
        self._warned = False

    def adopt(self) -> None:
        """Reads rates that are not the last decision's as present ones; called before a decision.

        Rates that are written again before each step are another schedule's, of which a warning tells once.
        """
        controller, factor = self._controller, _factor(self._controller)
        groups, last = controller.optimizer.param_groups, controller.last_lr
        for index, (group, rate) in enumerate(zip(groups, last, strict=False)):
            if not self._untouched(index, group["lr"]):
                written = float(group["lr"])
                if not math.isclose(written, rate, rel_tol=_ROUNDING):
                    controller.base_lrs[index] = written / factor
                    self._tell(index, written)
        for group in groups[len(last) :]:
            controller.base_lrs.append(float(group["lr"]) / factor)

    def note(self) -> None:
        """Notes the rates that a decision has set."""
        self._seen = [(group["lr"], _version(group["lr"])) for group in self._controller.optimizer.param_groups]

    def _untouched(self, index: int, lr: Any) -> bool:
        """Tests whether a tensor is as it was noted, which is known without waiting for its device."""
        if not isinstance(lr, Tensor) or index >= len(self._seen):
            return False
        noted, version = self._seen[index]
        return noted is lr and version == lr._version

    def _tell(self, index: int, written: float) -> None:
        step, last = self._controller.last_step, self._last
        self._last = step
        if last in (-1, step) or step > last + 1:
            rank_zero_info(f"metalr: param_groups[{index}]['lr'] was set to {written:.3g} before step {step}: taken up")
        elif not self._warned:
            self._warned = True
            rank_zero_warn(
                f"param_groups[{index}]['lr'] is set at every step by something beside MetaLRCallback, such as a "
                "warm-up in optimizer_step or a scheduler of your own: remove the one or the other"
            )


def show_initial_rates(trainer: L.Trainer, controllers: Sequence[MetaLR], hooks: ReplacedHooks) -> None:
    """Has a Trainer's finetuning callbacks see, and set, initial rates at the start of an epoch.

    Args:
        trainer: whose callbacks they are.
        controllers: of its optimizers.
        hooks: that replaces theirs, until it is released.
    """
    for callback in instances(trainer, "callbacks.BaseFinetuning"):
        hooks.replace(callback, "on_train_epoch_start", _on_initial_rates(callback.on_train_epoch_start, controllers))


def _on_initial_rates(hook: Callable[..., Any], controllers: Sequence[MetaLR]) -> Callable[..., Any]:
    @wraps(hook)
    def on_initial_rates(*args: Any, **kwargs: Any) -> Any:
        factors = [_factor(controller) for controller in controllers]
        for controller in controllers:
            for group, base in zip(controller.optimizer.param_groups, controller.base_lrs, strict=True):
                _write(group, base)
        result = hook(*args, **kwargs)
        for controller, factor in zip(controllers, factors, strict=True):
            groups, shown = controller.optimizer.param_groups, controller.base_lrs
            controller.base_lrs = [_read(group, shown[i : i + 1]) for i, group in enumerate(groups)]
            for group, base in zip(groups, controller.base_lrs, strict=True):
                _write(group, base * factor)
        return result

    return on_initial_rates


def _factor(controller: MetaLR) -> float:
    """Divides the rates as set last by the initial ones."""
    pairs = zip(controller.last_lr, controller.base_lrs, strict=True)
    return next((rate / base for rate, base in pairs if base > 0), 1.0)


def _read(group: dict[str, Any], shown: Sequence[float]) -> float:
    """Returns the rate of a group, to the last bit the one that was shown where that was left as it was."""
    written = float(group["lr"])
    return next((rate for rate in shown if math.isclose(written, rate, rel_tol=_ROUNDING)), written)


@torch.no_grad()
def _write(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _version(lr: Any) -> int:
    return int(lr._version) if isinstance(lr, Tensor) else 0
