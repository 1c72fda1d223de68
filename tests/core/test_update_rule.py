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
    bound,
    clock,
    clock_table,
    log_reference,
    span,
)

horizons = st.one_of(st.none(), st.integers(1, 10**6))


def test_golden_numbers_of_a_run_of_200_steps():
    assert log_reference(0, 200) == 0.0
    assert math.exp(log_reference(100, 200)) == pytest.approx(REFERENCE_FLOOR + (1 - REFERENCE_FLOOR) / 2)
    assert math.exp(log_reference(200, 200)) == pytest.approx(REFERENCE_FLOOR)
    assert bound(0, 200) == pytest.approx(0.4 + 3.0)
    assert bound(150, 200) == pytest.approx(40 / 200)
    assert [span(t, 200) for t in (0, 25, 50, 199)] == [100, 150, 200, 200]


def test_a_long_run_sees_its_start_on_the_scale_of_its_age():
    assert span(0, 200_000) == 100
    assert bound(1_000, 200_000) == pytest.approx(40 / 2_100)
    assert bound(150_000, 200_000) == pytest.approx(40 / 200_000)
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
    assert 0 < float(now.bound) <= 3.4 + 1e-5
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
    assert abs(float(after) - before) <= max(float(now.bound), NON_FINITE_CUT) + 1e-4


def test_zero_output_changes_nothing():
    s = torch.tensor([0.3, -2.0])
    after = advance(TORCH, s, torch.zeros(2), clock(3, 10), torch.tensor([True, True]))
    assert torch.equal(after, s)


def test_not_finite_halves_the_rate():
    after = advance(TORCH, torch.zeros(1), torch.tensor([9.0]), clock(3, 10), torch.tensor([False]))
    assert float(after.exp()) == pytest.approx(0.5)
