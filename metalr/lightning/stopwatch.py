"""Seconds that a run has taken."""

from __future__ import annotations

import time


class Stopwatch:
    """Measures the seconds of a run, those before a resumption included."""

    def __init__(self) -> None:
        self._before = 0.0
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the start, and what an earlier part of the run took."""
        return self._before + time.monotonic() - self._start

    def start(self) -> None:
        """Counts from now on."""
        self._start = time.monotonic()

    def resume(self, seconds: float) -> None:
        """Adds the seconds of an earlier part of the run."""
        self._before = seconds
