"""The figures of the experiment, as pure functions of numbers.

A run that diverged has the worst value there is: `worst(mode)`, an infinity; so means, ranks and comparisons need no
special case, and intervals of it are not given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from metalr.lightning.logged_metrics import reaches

LEVEL = 0.95
"""Level of every interval, and 1 - LEVEL of every test."""


@dataclass(frozen=True)
class Interval:
    """Holds a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Sums up values over seeds.

    Attributes:
        n: number of values.
        mean, low, high: mean, least and greatest.
        sd: sample standard deviation (n - 1); NaN of one value.
        interval: of the mean; None of one value, or where a run diverged.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    interval: Interval | None


@dataclass(frozen=True)
class Paired:
    """Holds first minus second over the same seeds.

    Attributes:
        n: pairs.
        difference: mean.
        interval: of the mean (Student's t); None of one pair, or where a run diverged.
        p: of the paired t test, two-sided; None where there is no interval.
    """

    n: int
    difference: float
    interval: Interval | None
    p: float | None


def worst(mode: str) -> float:
    """Gives the value of a diverged run: infinity where less is better, "min", and minus infinity in mode "max"."""
    return math.inf if mode == "min" else -math.inf


def finite_or_worst(value: float, mode: str) -> float:
    """Gives a value as it is, or the worst where it is not a finite number."""
    return value if math.isfinite(value) else worst(mode)


def better(first: float, second: float, mode: str) -> bool:
    """Tells whether the first is better; a tie is not."""
    return first < second if mode == "min" else first > second


def steps_to(steps: Sequence[int], values: Sequence[float], threshold: float, mode: str) -> float:
    """Finds the step of the first value that is as good as the threshold.

    Args:
        steps: at which the values were measured, (N,), ascending.
        values: (N,); NaN is as good as nothing.
        threshold: to be reached.
        mode: "min" or "max".

    Returns:
        The step, or infinity where the threshold was not reached (the run is censored at its end).
    """
    for step, value in zip(steps, values, strict=True):
        if reaches(value, threshold, mode):
            return float(step)
    return math.inf


def summarise(values: ArrayLike) -> Summary:
    """Works out mean, spread and range of values (N,), N at least 1, with a bootstrap interval of the mean."""
    array = np.asarray(values, dtype=float)
    finite = bool(np.isfinite(array).all())
    sd = float(array.std(ddof=1)) if len(array) > 1 and finite else math.nan
    return Summary(
        n=len(array),
        mean=float(array.mean()),
        sd=sd,
        low=float(array.min()),
        high=float(array.max()),
        interval=bootstrap(array) if finite else None,
    )


def bootstrap(values: ArrayLike, resamples: int = 9_999) -> Interval | None:
    """Works out the percentile bootstrap interval of the mean of values (N,) (Efron and Tibshirani 1993, chapter 13).

    With few seeds it is too narrow: of 3 it covers about 3 in 4. The same values give the same interval.

    Returns:
        The interval, or None of fewer than two values.
    """
    array = np.asarray(values, dtype=float)
    if len(array) < 2:
        return None
    if np.ptp(array) == 0:
        return Interval(float(array[0]), float(array[0]))
    found = stats.bootstrap(
        (array,), np.mean, n_resamples=resamples, confidence_level=LEVEL, method="percentile", rng=0
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def paired(first: ArrayLike, second: ArrayLike) -> Paired:
    """Does the paired t test of values (N,) over the same seeds, N at least 1."""
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = np.subtract(np.asarray(first, dtype=float), np.asarray(second, dtype=float))
        n, mean = len(difference), float(difference.mean())
    if n < 2 or not np.isfinite(difference).all():
        return Paired(n, mean, None, None)
    if np.ptp(difference) <= 1e-12 * np.abs(first).max():  # the same but for rounding
        return Paired(n, mean, Interval(mean, mean), 1.0 if mean == 0 else 0.0)
    test = stats.ttest_1samp(difference, 0.0)
    interval = test.confidence_interval(LEVEL)
    return Paired(n, mean, Interval(float(interval.low), float(interval.high)), float(test.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusts p values for their number, in their order (Holm 1979)."""
    adjusted, running = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = running
    return adjusted


def lr_sensitivity(losses: ArrayLike, initial: float) -> float:
    """Measures how much is lost on average by not knowing the best rate (Wortsman et al. 2023, section 2.2).

    mean over rates of min(loss, initial loss) - least loss; 0 is insensitive.

    Args:
        losses: final losses, (R,), at rates log-spaced over the range of interest; NaN and infinity for runs
            that diverged.
        initial: loss at initialisation; a run can lose no more than that.

    Returns:
        Sensitivity in the unit of the loss; NaN of one rate.
    """
    array = np.asarray(losses, dtype=float)
    if len(array) < 2:
        return math.nan
    clipped = np.minimum(np.where(np.isnan(array), np.inf, array), initial)
    return float(np.mean(clipped - clipped.min()))


def share_of_decades(rates: ArrayLike, losses: ArrayLike, best: float, tolerance: float = 0.05) -> float:
    """Measures the share of the range of rates, in decades, over which the loss is within a tolerance of the best.

    Between two rates the loss is taken as linear in the logarithm of the rate; next to a run that diverged, only
    the other rate itself counts, which is no length.

    Args:
        rates: (R,), ascending, all above 0.
        losses: final losses, (R,); infinity or NaN for runs that diverged.
        best: loss to be compared with.
        tolerance: as a share of the best loss's absolute value.

    Returns:
        In [0, 1]; NaN of one rate.
    """
    x, y = np.log10(np.asarray(rates, dtype=float)), np.asarray(losses, dtype=float)
    if len(x) < 2:
        return math.nan
    bound = best + tolerance * abs(best)
    return float(sum(map(_below, x, x[1:], y, y[1:], [bound] * (len(x) - 1))) / (x[-1] - x[0]))


def _below(x0: float, x1: float, y0: float, y1: float, bound: float) -> float:
    """Length of [x0, x1] over which the line from y0 to y1 is at most the bound."""
    if not (math.isfinite(y0) and math.isfinite(y1)):
        return 0.0
    if y0 == y1:
        return x1 - x0 if y0 <= bound else 0.0
    crossing = min(1.0, max(0.0, (bound - y0) / (y1 - y0)))
    return (x1 - x0) * (crossing if y0 < y1 else 1.0 - crossing)


def wins(first: ArrayLike, second: ArrayLike, mode: str) -> float:
    """Counts the share of pairs of values (N,) in which the first is better; a tie is half of one. NaN of no pairs."""
    a: NDArray[np.float64] = np.asarray(first, dtype=float)
    b: NDArray[np.float64] = np.asarray(second, dtype=float)
    if not len(a):
        return math.nan
    won = a < b if mode == "min" else a > b
    return float(np.mean(won + 0.5 * (a == b)))
