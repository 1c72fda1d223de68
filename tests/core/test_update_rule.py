import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr.core.backend import TORCH
from metalr.core.update_rule import (
    MAX_LOG_MULTIPLIER,
    NON_FINITE_CUT,
    REFERENCE_FLOOR,
    Clock,
    advance,
    bounds,
    clock,
    clock_table,
    log_reference,
    lr_factor,
    span,
)

horizons = st.one_of(st.none(), st.integers(1, 10**6))


def test_golden_numbers_of_a_run_of_200_steps():
    assert log_reference(0, 200) == 0.0
    assert math.exp(log_reference(100, 200)) == pytest.approx(REFERENCE_FLOOR + (1 - REFERENCE_FLOOR) / 2)
    assert math.exp(log_reference(200, 200)) == pytest.approx(REFERENCE_FLOOR)
    assert bounds(0, 200) == pytest.approx((0.4 + 3.0, 0.4 + 3.0))
    assert bounds(150, 200) == pytest.approx((40 / 200, 40 / 200))
    assert [span(t, 200) for t in (0, 25, 50, 199)] == [100, 150, 200, 200]


def test_golden_numbers_of_the_first_steps():
    """The bounds' early parts, 3 exp(-t) and 3 exp(-t/2), and windows of 1, 5 and 20 % of the span."""
    rises = [0.4 + 3.0, 40 / 102 + 3.0 / math.e, 40 / 104 + 3.0 * math.exp(-2.0)]
    falls = [0.4 + 3.0, 40 / 102 + 3.0 * math.exp(-0.5), 40 / 104 + 3.0 / math.e]
    assert [bounds(t, 1000)[0] for t in (0, 1, 2)] == pytest.approx(rises)
    assert [bounds(t, 1000)[1] for t in (0, 1, 2)] == pytest.approx(falls)
    assert bounds(1, 10) == pytest.approx((0.4 + 3.0 / math.e, 0.4 + 3.0 * math.exp(-0.5)))
    assert clock(0, 50).windows() == pytest.approx((4.0, 8.0, 16.0))
    now = clock(700, 1000)
    assert now.windows() == pytest.approx((10.0, 50.0, 200.0))
    assert clock(150, 1000).windows() == pytest.approx((4.0, 20.0, 80.0))
    assert (float(now.progress), float(now.early)) == (pytest.approx(0.4), pytest.approx(math.exp(-70)))
    assert float(now.log_reference) == pytest.approx(math.log(0.001 + 0.999 * 0.5 * (1 + math.cos(0.7 * math.pi))))
    assert float(clock(1500, 1000).progress) == 1.0


def test_golden_numbers_of_a_step_and_its_factor():
    """A step of 0.3 of the bound from s = 0.2; ref(1/2) = 0.5005."""
    now = clock(100, 200)
    after = advance(TORCH, torch.tensor([0.2]), torch.tensor([math.atanh(0.3)]), now, torch.tensor([True]))
    assert float(after) == pytest.approx(0.2 + 0.3 * 40 / 200)
    early, action = clock(2, 200), math.atanh(0.3)
    for sign, bound in ((1.0, 40 / 104 + 3.0 * math.exp(-2.0)), (-1.0, 40 / 104 + 3.0 * math.exp(-1.0))):
        moved = advance(TORCH, torch.tensor([0.2]), torch.tensor([sign * action]), early, torch.tensor([True]))
        assert float(moved) == pytest.approx(0.2 + sign * 0.3 * bound, rel=1e-5)
    assert float(lr_factor(TORCH, after, now)) == pytest.approx(0.5005 * math.exp(0.26), rel=1e-5)
    for bad in (math.nan, math.inf):  # an action that is no number
        halved = advance(TORCH, torch.tensor([0.2]), torch.tensor([bad]), now, torch.tensor([True]))
        assert float(halved) == pytest.approx(0.2 - math.log(2))
    low = advance(TORCH, torch.tensor([-13.99]), torch.tensor([-9.0]), now, torch.tensor([True]))
    assert float(low) == -MAX_LOG_MULTIPLIER


def test_a_long_run_sees_its_start_on_the_scale_of_its_age():
    assert span(0, 200_000) == 100
    assert bounds(1_000, 200_000) == pytest.approx((40 / 2_100, 40 / 2_100))
    assert bounds(150_000, 200_000) == pytest.approx((40 / 200_000, 40 / 200_000))
    assert span(10**6, None) == pytest.approx(2 * (10**6 + 50))


def test_table_rows_are_the_clocks():
    table = clock_table(50)
    for step in (0, 1, 30, 49):
        assert all(torch.equal(a, b) for a, b in zip(clock(step, 50), Clock.from_row(table[step]), strict=True))
    assert torch.equal(clock_table(50, anytime=True)[7, :3], torch.tensor([0.0, math.exp(-0.7), 0.0]))


@given(step=st.integers(0, 10**6), total=horizons)
def test_every_clock_is_in_range(step, total):
    now = clock(step, total)
    assert -1 <= float(now.progress) <= 1
    assert 0 <= float(now.early) <= 1
    assert math.log(REFERENCE_FLOOR) - 1e-5 <= float(now.log_reference) <= 0
    assert 0 < float(now.rise_bound) <= float(now.fall_bound) <= 3.4 + 1e-5
    assert 4 <= float(now.fast_window) < float(now.middle_window) < float(now.slow_window)


@given(
    before=st.floats(-MAX_LOG_MULTIPLIER, MAX_LOG_MULTIPLIER),
    output=st.floats(allow_nan=True, allow_infinity=True, width=32),
    finite=st.booleans(),
    step=st.integers(0, 1000),
)
def test_a_step_is_bounded_and_never_nan(before, output, finite, step):
    now = clock(step, 1000)
    after = advance(TORCH, torch.tensor([before]), torch.tensor([output]), now, torch.tensor([finite]))
    assert bool(torch.isfinite(after).all())
    assert abs(float(after)) <= MAX_LOG_MULTIPLIER
    assert float(after) - before <= float(now.rise_bound) + 1e-4
    assert before - float(after) <= max(float(now.fall_bound), NON_FINITE_CUT) + 1e-4


def test_zero_output_changes_nothing():
    s = torch.tensor([0.3, -2.0])
    after = advance(TORCH, s, torch.zeros(2), clock(3, 10), torch.tensor([True, True]))
    assert torch.equal(after, s)


def test_not_finite_halves_the_rate():
    after = advance(TORCH, torch.zeros(1), torch.tensor([9.0]), clock(3, 10), torch.tensor([False]))
    assert float(after.exp()) == pytest.approx(0.5)
