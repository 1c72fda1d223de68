"""Means over cells with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from metalr.compare.metrics import LEVEL, Paired, paired

Pairs = Sequence[tuple[float, float]]
"""Of each cell, a number of the one and of the other."""


@dataclass(frozen=True)
class Estimate:
    """Holds a mean over cells.

    Attributes:
        value: mean.
        low, high: ends of its 95 % interval; None of one cell.
        cells: that it is over.
    """

    value: float
    low: float | None
    high: float | None
    cells: int


def ratio(pairs: Pairs) -> Estimate | None:
    """Works out the geometric mean of first over second, with Student's t interval of the mean log ratio.

    Returns:
        The mean, or None of no cell.
    """
    if not pairs:
        return None
    found = paired(*([math.log(value) for value in side] for side in zip(*pairs, strict=True)))
    low, high = _ends(found)
    return Estimate(math.exp(found.difference), _exp(low), _exp(high), found.n)


def difference(pairs: Pairs) -> Estimate | None:
    """Works out the mean of first minus second, with Student's t interval; None of no cell."""
    if not pairs:
        return None
    found = paired(*zip(*pairs, strict=True))
    return Estimate(found.difference, *_ends(found), found.n)


def share(hits: Iterable[bool]) -> Estimate | None:
    """Works out the share of cells that are hits, with the interval of Clopper and Pearson 1934; None of no cell."""
    each = list(hits)
    if not each:
        return None
    ends = binomtest(sum(each), len(each)).proportion_ci(LEVEL)
    return Estimate(sum(each) / len(each), float(ends.low), float(ends.high), len(each))


def _ends(found: Paired) -> tuple[float | None, float | None]:
    return (None, None) if found.interval is None else (found.interval.low, found.interval.high)


def _exp(value: float | None) -> float | None:
    return None if value is None else math.exp(value)
