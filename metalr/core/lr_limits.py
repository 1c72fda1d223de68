"""Caps on the learning rate in the optimizer's own units, per parameter group where given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, SupportsFloat

Limit = float | Sequence[float] | None
"""One rate for all parameter groups, one for each, or none."""


class LogBounds(NamedTuple):
    """Holds bounds on the log of the factor of the initial rates, nats."""

    low: float = -math.inf
    high: float = math.inf


UNLIMITED = LogBounds()
"""No limit."""


class LRLimits:
    """Keeps every group's rate within [min_lr, max_lr].

    Groups keep their ratios: the group that comes to its limit first holds the others back, too.

        limits = LRLimits(max_lr=1e-3)
        limits.bounds([1e-4, 1e-5])  # the factor of the initial rates may be 10 at most

    Args:
        min_lr: smallest rate, above 0; for all groups, or one for each; None for no limit.
        max_lr: largest rate; likewise.

    Raises:
        ValueError: for a limit that is not positive and finite.
    """

    def __init__(self, min_lr: Limit = None, max_lr: Limit = None) -> None:
        self.min_lr, self.max_lr = _checked("min_lr", min_lr), _checked("max_lr", max_lr)

    def check(self, base_lrs: Sequence[float]) -> None:
        """Refuses initial rates that lie outside of the limits.

        Args:
            base_lrs: initial rate of each group; a group of rate 0 is frozen and has no limit.

        Raises:
            ValueError: for such a rate, or limits of another number of groups.
        """
        for index, base in enumerate(base_lrs):
            least, most = _of_group("min_lr", self.min_lr, index), _of_group("max_lr", self.max_lr, index)
            if most is not None and base > most:
                raise ValueError(
                    f"max_lr={most} is below the initial rate {base} of param_groups[{index}]: give a larger max_lr, "
                    "or begin with a smaller rate"
                )
            if least is not None and 0.0 < base < least:
                raise ValueError(
                    f"min_lr={least} is above the initial rate {base} of param_groups[{index}]: give a smaller min_lr, "
                    "or begin with a larger rate"
                )

    def bounds(self, base_lrs: Sequence[float]) -> LogBounds:
        """Gives the bounds of the factor that all groups' rates have in common; the upper one comes first.

        Args:
            base_lrs: initial rate of each group; a group of rate 0 is frozen and has no limit.

        Raises:
            ValueError: for limits of another number of groups.
        """
        if self.min_lr is None and self.max_lr is None:
            return UNLIMITED
        low, high = -math.inf, math.inf
        for index, base in enumerate(base_lrs):
            if base == 0.0:
                continue
            least, most = _of_group("min_lr", self.min_lr, index), _of_group("max_lr", self.max_lr, index)
            high = high if most is None else min(high, math.log(most / base))
            low = low if least is None else max(low, math.log(least / base))
        return LogBounds(low, high)


def _checked(name: str, limit: Limit) -> Limit:
    given = limit if isinstance(limit, Sequence) and not isinstance(limit, str) else [limit]
    for value in given:
        if value is not None and not 0.0 < _number(value) < math.inf:
            raise ValueError(f"{name}={limit}: give a finite rate above 0, one for each group, or None for no limit")
    return limit


def _number(value: SupportsFloat | str) -> float:
    """Returns a number of any type, or one element of an array or tensor; NaN for anything else."""
    try:
        return math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def _of_group(name: str, limit: Limit, index: int) -> float | None:
    if not isinstance(limit, Sequence):
        return limit
    if index >= len(limit):
        raise ValueError(
            f"{name}={list(limit)} is for {len(limit)} parameter groups, there are more: give one for each"
        )
    return limit[index]
