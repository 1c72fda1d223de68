"""Which steps are kept, so that a long run stays small; and when a figure may be drawn, so that it stays fast."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Decimation:
    """Keeps the first steps of a run, and of the rest one in every stride, which doubles when there are too many.

    Of T steps at most `first + capacity + 1` are kept, evenly spaced beyond the first, without knowing T; and no
    more than `first + capacity (1 + log2(T / capacity))` were ever kept for a time.

    Attributes:
        first: steps that are all kept: a rate that is wrong by decades is put right in these.
        capacity: steps that are kept of the others, at most.
        stride: steps from one that is kept to the next, a power of 2.
    """

    first: int = 32
    capacity: int = 512
    stride: int = 1

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.first < 0 or self.capacity < 2:
            raise ValueError(f"first={self.first}, capacity={self.capacity}: give 0 or more and 2 or more")

    def due(self, step: int, last: int) -> bool:
        """Whether a step is to be kept after `last` was, -1 where none was."""
        return step > last and (step < self.first or last < 0 or step // self.stride > last // self.stride)

    def keep(self, steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the steps that were kept so far stay, (N,), the last among them.

        Doubles the stride until they are few enough.
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
    """Lets something costly happen at each doubling of the step, and while it takes a small share of the time.

    Args:
        share: of the time since the start that it may take, in (0, 1].
        cost: seconds that the first is taken to last.
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
        """Whether it is time."""
        if step < max(1, 2 * self._last):
            return False
        return self._spent + self._cost <= self.share * (time.monotonic() - self._start)

    @contextmanager
    def spend(self, step: int) -> Iterator[None]:
        """Takes the time of what happens at a step."""
        begin = time.monotonic()
        yield
        self._last, self._cost = step, time.monotonic() - begin
        self._spent += self._cost
