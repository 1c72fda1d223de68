"""Bounds on the cost of an inspection: which steps are kept, and when something slow may be done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Decimation:
    """Keeps the first steps of a run, and one in `stride` of the rest; the stride doubles when too many are kept.

    Of T steps at most `first + capacity + 1` are kept, evenly spaced beyond the first ones, without knowing T. Steps
    that were kept at first and dropped later included, no more than `first + capacity (1 + log2(T / capacity))` are.

    Attributes:
        first: number of first steps that are all kept, 0 or more: most of the rate's movement happens there.
        capacity: largest number of later steps that are kept, 2 or more.
        stride: distance of two kept steps, a power of 2.

    Raises:
        ValueError: for a number out of range.
    """

    first: int = 32
    capacity: int = 512
    stride: int = 1

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.first < 0 or self.capacity < 2:
            raise ValueError(f"first={self.first}, capacity={self.capacity}: give 0 or more and 2 or more")

    def due(self, step: int, last: int) -> bool:
        """Returns whether to keep a step, given the `last` one that was kept (-1 for none)."""
        return step > last and (step < self.first or last < 0 or step // self.stride > last // self.stride)

    def keep(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Selects the steps to go on keeping, and doubles the stride until they are few enough.

        Args:
            steps: kept so far, ascending, (N,).

        Returns:
            A mask of those that stay, (N,); the last one always does.
        """
        early = steps < self.first
        while True:
            cells = steps // self.stride
            fresh = np.diff(cells, prepend=-1) > 0
            if int((fresh & ~early).sum()) <= self.capacity:
                kept = early | fresh
                kept[-1:] = True
                return kept
            self.stride *= 2


class Pace:
    """Schedules something slow: at each doubling of the step, while it takes no more than a share of the time.

    Args:
        share: largest share of the time since the start, in (0, 1].
        cost: assumed duration of the first occasion, seconds.

    Raises:
        ValueError: for a share out of range.
    """

    def __init__(self, share: float = 0.01, cost: float = 2.0) -> None:
        if not 0.0 < share <= 1.0:
            raise ValueError(f"share={share}: give a share of the time, in (0, 1]")
        self.share = share
        self._cost = cost
        self._spent = 0.0
        self._start = time.monotonic()
        self._last = 0

    def due(self, step: int) -> bool:
        """Returns whether it may be done at this step."""
        if step < max(1, 2 * self._last):
            return False
        return self._spent + self._cost <= self.share * (time.monotonic() - self._start)

    @contextmanager
    def spend(self, step: int) -> Iterator[None]:
        """Measures the time of what is done inside the context, at this step."""
        begin = time.monotonic()
        yield
        self._last, self._cost = step, time.monotonic() - begin
        self._spent += self._cost
