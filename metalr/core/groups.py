"""Initial rates of an optimizer's parameter groups: the "lr" of each, and the multipliers that are kept beside it."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from metalr.core.backend import Number
from metalr.core.sample import ParamGroup

logger = logging.getLogger("metalr")

ROUNDING = 1e-6
"""Relative difference up to which two rates are the same one: a tensor's is rounded to single precision."""

SCALES = ("lr_scale", "lr_mult", "lr_multiplier")
"""Keys of a group under which others' schedulers find a multiplier of its rate: timm, BEiT, MAE and fairseq write the
first, many the second, DINOv2 the third."""


class GroupRates:
    """Holds the initial rates of an optimizer's groups, and sets the current ones.

    The rate of group g at step t is lr_g(0) * factor(t), with one factor for all groups. A rate that other code
    writes into a group is a current one, from which the schedule continues: lr_g(0) becomes lr / factor(t). Ratios
    between the groups are kept.

    Args:
        optimizer: whose groups they are.

    Attributes:
        base: lr_g(0) of each group; 0 for one that is frozen.
        factor: of the initial rates, as set last.

    Raises:
        ValueError: as `initial_rates` does, and where all groups are frozen.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.base = initial_rates(optimizer.param_groups)
        self.factor: Number = 1.0
        self._noted = _noted(optimizer.param_groups)
        self._last_written = -1
        self._warned = False
        if not any(self.base):
            raise ValueError(
                f"every group's 'lr' or multiplier is 0, of {len(self.base)}: a group with a rate of 0 is frozen; give "
                "at least one a finite initial rate above 0"
            )

    def adopt(self, step: int) -> None:
        """Adopts rates that were written since the last decision, and those of groups that were added.

        A group that was added without a rate of its own has the optimizer's default, which is an initial one. Where
        rates are written at steps that follow each other, something else sets them, too: a warning says so, once.

        Args:
            step: of the decision that comes.
        """
        groups, known = self._optimizer.param_groups, len(self.base)
        written = [
            i for i, (group, noted) in enumerate(zip(groups, self._noted, strict=False)) if noted != _note(group)
        ]
        for index in written:
            lr = float(groups[index]["lr"])
            if not math.isclose(lr, self.base[index] * float(self.factor), rel_tol=ROUNDING):
                self.base[index] = lr / float(self.factor)
                self._report(index, lr, step)
        if len(groups) > known:
            added = initial_rates(groups, self.base)
            defaults = self._optimizer.defaults.get("lr")
            for index in range(known, len(groups)):
                if groups[index]["lr"] is not defaults:
                    added[index] /= float(self.factor)
            self.base = added

    def set(self, factor: Number) -> None:
        """Sets every group's rate to its initial one times a factor; a rate that is a tensor is filled in place."""
        self.fill(factor)
        self.note()

    def fill(self, factor: Number) -> None:
        """Writes the rates without recording them; safe in a captured graph."""
        self.factor = factor
        for group, base in zip(self._optimizer.param_groups, self.base, strict=True):
            lr = group["lr"]
            if not isinstance(lr, Tensor):
                group["lr"] = base * float(factor)
            elif isinstance(factor, Tensor):
                lr.copy_((factor * base).reshape(lr.shape))
            else:
                lr.fill_(base * float(factor))

    def note(self) -> None:
        """Records the current rates so that later external writes are detected."""
        self._noted = _noted(self._optimizer.param_groups)

    def rebase(self, base: Sequence[float]) -> None:
        """Replaces the initial rates, and sets the present ones to the same factor of them."""
        self.base = list(base)
        self.set(self.factor)

    def restore(self, base: list[float], factor: Number) -> None:
        """Restores what was stored of another run, whose optimizer may be restored later."""
        self.base, self.factor, self._noted = base, factor, []

    def _report(self, index: int, lr: float, step: int) -> None:
        again, self._last_written = step == self._last_written + 1 and step > 0, step
        if not again:
            logger.info(
                "metalr: param_groups[%d]['lr'] was changed externally to %.3g before step %d; using it from now on",
                index,
                lr,
                step,
            )
        elif not self._warned:
            self._warned = True
            warnings.warn(
                f"param_groups[{index}]['lr'] is set at every step by something beside MetaLR, such as a warm-up or "
                "another scheduler: remove the one or the other",
                stacklevel=4,
            )


def _note(group: ParamGroup) -> tuple[object, int]:
    """Returns what changes when a group's rate does, read without waiting: its value, or a tensor and its version."""
    lr = group["lr"]
    return (id(lr), lr._version) if isinstance(lr, Tensor) else (lr, 0)


def _noted(groups: Sequence[ParamGroup]) -> list[tuple[object, int]]:
    return [_note(group) for group in groups]


def initial_rates(groups: Sequence[ParamGroup], known: Sequence[float] = ()) -> list[float]:
    """Reads the initial rate of each group: its "lr" times its multiplier, where the "lr" does not hold that yet.

    timm's layer decay and most others leave one "lr" in all groups, and a scheduler applies `lr_scale`; OpenMMLab's
    writes `lr_scale` beside an "lr" that holds it. So where the multipliers differ and each "lr" divided by its
    multiplier is the same, they are held; anywhere else they are applied.

    Args:
        groups: `optimizer.param_groups`.
        known: initial rates of the first groups, which were read before.

    Returns:
        A rate for each group, those that are known first; 0 for a group that is frozen.

    Raises:
        ValueError: for a group without an "lr", or whose rate or multiplier is not finite and 0 or more.
    """
    scales = [_scale(group, index) for index, group in enumerate(groups)]
    own = [*known, *(_own_rate(group, index) for index, group in enumerate(groups) if index >= len(known))]
    pairs = [(rate, scale) for rate, scale in zip(own, scales, strict=True) if rate > 0 and scale > 0]
    unscaled = [rate / scale for rate, scale in pairs]
    held = len({scale for _, scale in pairs}) > 1 and math.isclose(min(unscaled), max(unscaled), rel_tol=1e-6)
    new = zip(own[len(known) :], scales[len(known) :], strict=True)
    return [*known, *(rate if held else rate * scale for rate, scale in new)]


def _own_rate(group: ParamGroup, index: int) -> float:
    if "lr" not in group:
        raise ValueError(
            f"param_groups[{index}] has no 'lr': the optimizer has no learning rate that could be set; use it without "
            "MetaLR"
        )
    if group["lr"] is None:
        raise ValueError(
            f"param_groups[{index}]['lr']=None: the optimizer sets its own rate; give it one to be set, as in "
            "Adafactor(..., lr=1e-3, relative_step=False)"
        )
    return _checked(float(group["lr"]), f"param_groups[{index}]['lr']", "initial rate")


def _scale(group: ParamGroup, index: int) -> float:
    key = next((key for key in SCALES if group.get(key) is not None), None)
    return 1.0 if key is None else _checked(float(group[key]), f"param_groups[{index}]['{key}']", "multiplier")


def _checked(value: float, name: str, kind: str) -> float:
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name}={value}: give a finite {kind} above 0, or 0 to freeze the group")
    return value
