"""The figures against numbers worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalr.compare import metrics

LOSSES = st.lists(st.floats(0.01, 100.0), min_size=2, max_size=8)


def test_steps_to_a_threshold():
    steps, losses = [10, 20, 30, 40], [3.0, math.nan, 1.0, 2.0]
    assert metrics.steps_to(steps, losses, 1.0, "min") == 30  # a tie reaches it, and NaN reaches nothing
    assert metrics.steps_to(steps, losses, 0.99, "min") == math.inf
    assert metrics.steps_to(steps, [0.1, 0.7, 0.7, 0.9], 0.7, "max") == 20
    assert metrics.steps_to(steps, [math.nan] * 4, 0.0, "max") == math.inf


@given(LOSSES, st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_a_harder_threshold_is_not_reached_earlier(losses, one, other):
    steps = range(len(losses))
    easy, hard = max(one, other), min(one, other)
    assert metrics.steps_to(steps, losses, easy, "min") <= metrics.steps_to(steps, losses, hard, "min")


def test_a_summary_by_hand():
    found = metrics.summarise([1.0, 2.0, 6.0])
    assert (found.n, found.mean, found.low, found.high) == (3, 3.0, 1.0, 6.0)
    assert found.sd == pytest.approx(math.sqrt(7.0))
    assert 1.0 <= found.interval.low < 3.0 < found.interval.high <= 6.0
    assert found == metrics.summarise([1.0, 2.0, 6.0])


def test_summaries_that_have_no_interval():
    one = metrics.summarise([2.0])
    assert one.mean == 2.0
    assert math.isnan(one.sd)
    assert one.interval is None
    diverged = metrics.summarise([1.0, math.inf])
    assert diverged.mean == diverged.high == math.inf
    assert diverged.interval is None
    same = metrics.summarise([2.0, 2.0])
    assert same.interval == metrics.Interval(2.0, 2.0)


def test_the_paired_test_by_hand():
    """Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 3.4641, two degrees of freedom."""
    found = metrics.paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3.0)
    assert found.difference == 2.0
    assert (found.interval.low, found.interval.high) == pytest.approx((2.0 - half, 2.0 + half))
    assert found.p == pytest.approx(0.0741799)


def test_pairs_that_prove_nothing():
    assert metrics.paired([1.0], [2.0]) == metrics.Paired(1, -1.0, None, None)
    assert metrics.paired([1.0, math.inf], [2.0, 1.0]).p is None
    assert metrics.paired([math.inf, math.inf], [math.inf, math.inf]).interval is None
    assert metrics.paired([1.0, 2.0], [1.0, 2.0]) == metrics.Paired(2, 0.0, metrics.Interval(0.0, 0.0), 1.0)


def test_holms_example():
    """Of four: 0.005 x 4, 0.01 x 3, then 0.03 x 2 and 0.04 x 1, which may not fall below it."""
    assert metrics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert metrics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert metrics.holm([]) == []


def test_sensitivity_by_hand():
    """min(loss, 2) - 0.5 over the rates: 0, 0.5, 1.5, 1.5, 1.5."""
    assert metrics.lr_sensitivity([0.5, 1.0, 7.0, math.inf, math.nan], initial=2.0) == pytest.approx(1.0)
    assert metrics.lr_sensitivity([0.5, 0.5], initial=2.0) == 0.0
    assert math.isnan(metrics.lr_sensitivity([0.5], initial=2.0))


@given(LOSSES, st.floats(0.1, 100.0), st.floats(-5.0, 5.0))
def test_sensitivity_is_bounded_and_not_moved_by_a_shift(losses, initial, shift):
    found = metrics.lr_sensitivity(losses, initial)
    assert 0.0 <= found <= initial
    shifted = metrics.lr_sensitivity(np.array(losses) + shift, initial + shift)
    assert shifted == pytest.approx(found, abs=1e-9)


def test_the_share_of_decades_by_hand():
    """Bound 1.05: all of the first decade, and of the second, from 1.0 up to 2.0, a twentieth; then none."""
    share = metrics.share_of_decades([0.001, 0.01, 0.1, 1.0], [1.0, 1.0, 2.0, math.inf], best=1.0)
    assert share == pytest.approx(1.05 / 3)
    assert metrics.share_of_decades([0.1, 1.0], [1.0, math.inf], best=1.0) == 0.0
    assert metrics.share_of_decades([0.1, 1.0], [-1.0, -0.96], best=-1.0) == 1.0
    assert math.isnan(metrics.share_of_decades([0.1], [1.0], best=1.0))


@given(LOSSES)
def test_the_share_of_decades_is_a_share(losses):
    rates = np.logspace(-3, 1, len(losses))
    assert 0.0 <= metrics.share_of_decades(rates, losses, min(losses)) <= 1.0 + 1e-9
    assert metrics.share_of_decades(rates, losses, max(losses)) == pytest.approx(1.0)


def test_wins_and_ties():
    assert metrics.wins([1.0, 2.0, 3.0, math.inf], [2.0, 2.0, 1.0, math.inf], "min") == pytest.approx(2 / 4)
    assert metrics.wins([1.0], [2.0], "max") == 0.0
    assert math.isnan(metrics.wins([], [], "min"))


@given(LOSSES)
def test_two_that_meet_share_the_wins(losses):
    other = losses[::-1]
    for mode in ("min", "max"):
        assert metrics.wins(losses, other, mode) + metrics.wins(other, losses, mode) == pytest.approx(1.0)
