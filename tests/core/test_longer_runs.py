"""Runs of ten times the longest horizon of meta-training, 20,000 steps: what the policy reads there and how it acts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr.core.backend import HOST, TORCH, to_host
from metalr.core.features import FEATURES, FeatureState, observe
from metalr.core.signals import Signals
from metalr.core.update_rule import MIN_WINDOWS, WINDOW_SHARES, Clock, bounds, clock_row, span

OF_WINDOWS = slice(5, 8)
SETTLED = max(least / share for least, share in zip(MIN_WINDOWS, WINDOW_SHARES, strict=True))
"""Span in steps from which no window is at its least length."""


@given(total=st.integers(int(SETTLED), 20_000), share=st.floats(0.5, 1.0))
def test_past_its_youth_a_run_ten_times_as_long_has_the_same_clock(total, share):
    """Windows are ten times as long and the bounds a tenth, once a run is older than half of its horizon."""
    step = round(share * total)
    short, long = clock_row(step, total), clock_row(10 * step, 10 * total)
    assert long[0] == pytest.approx(short[0], abs=1e-6)  # progress
    assert long[2] == pytest.approx(short[2], abs=1e-6)  # log of the reference
    for column in (3, 4):  # the largest rise and fall, whose early parts are over
        assert long[column] == pytest.approx(short[column] / 10.0, rel=1e-6)
    assert long[OF_WINDOWS] == pytest.approx([10.0 * window for window in short[OF_WINDOWS]], rel=1e-6)


@given(total=st.integers(200, 20_000), share=st.floats(0.0, 0.4))
def test_in_its_youth_a_run_ten_times_as_long_does_the_same(total, share):
    """Windows and bounds follow the age, step by step; the horizon shows in progress and reference alone."""
    step = round(share * total) // 2
    short, long = clock_row(step, total), clock_row(step, 10 * total)
    if span(step, total) < total:
        assert long[1] == short[1]
        assert long[3:] == short[3:]


@pytest.mark.parametrize("total", [1_000, 20_000])
def test_ten_times_the_steps_move_the_rate_by_46_nats_more_at_most(total):
    """The sum of the bounds, the largest total change, grows by 20 log 10: it neither shrinks with T nor explodes."""
    change, longer = (sum(bounds(step, end)[1] for step in range(end)) for end in (total, 10 * total))
    assert longer - change == pytest.approx(20.0 * math.log(10.0), rel=0.15)


def signals_at(share: float, step: int) -> Signals:
    """Those of a run that falls from 2.3 to 0.8, as functions of the share of its horizon, with noise of 0.02."""
    fall = math.exp(-4.0 * share)
    numbers = {
        "loss": 0.8 + 1.5 * fall + (0.02 if step % 2 else -0.02),
        "grad_norm": 0.3 + fall,
        "param_norm": 10.0 + 2.0 * share,
        "update_norm": 0.02,
        "alignment": 0.2 * fall,
        "optimizer": -1.0,
        "travel": 0.1 + 3.0 * share,
        "origin_product": 0.0,
        "distance_scale": 1e-3,
        "weight_structure": 0.0,
    }
    return Signals(**numbers)


def follow(total: int, steps: range, state: FeatureState | None = None) -> tuple[FeatureState, dict[int, torch.Tensor]]:
    """Observes some steps of a run on the host, in double precision; returns the features of each."""
    state, seen = state or FeatureState(*map(to_host, FeatureState.empty(1))), {}
    for step in steps:
        clock = Clock(*clock_row(step, total))
        state, seen[step], _ = observe(HOST, state, signals_at(step / total, step), 0.0, clock)
    return state, seen


def test_a_run_ten_times_as_long_shows_the_same_features():
    """Past half of the horizon, of a run whose losses and norms are the same functions of its share."""
    total = 2_000
    short, long = (follow(end, range(round(0.9 * end) + 1))[1] for end in (total, 10 * total))
    for share in (0.6, 0.75, 0.9):
        difference = torch.tensor(short[round(share * total)] - long[round(share * 10 * total)]).abs()
        assert float(difference.max()) < 0.1, f"{share}: {FEATURES[int(difference.argmax())]}"


def test_single_precision_carries_a_run_of_200_000_steps():
    """Past its half, where the slowest average takes 1/40,000 of a difference a step."""
    total, first, last = 200_000, 150_000, 150_300
    start, _ = follow(total, range(first, first + 1))
    start = start._replace(seen=float(first))
    double = torch.tensor(follow(total, range(first + 1, last), start)[1][last - 1])
    state = FeatureState(*(torch.tensor(part, dtype=torch.float32)[..., None] for part in start))
    for step in range(first + 1, last):
        clock = Clock.from_row(torch.tensor(clock_row(step, total)))
        given = {"validation": math.nan, "steps_per_epoch": 0.0}
        measured = signals_at(step / total, step)._asdict() | given
        signals = Signals(**{name: torch.tensor([part]) for name, part in measured.items()})
        state, single, _ = observe(TORCH, state, signals, torch.zeros(1), clock)
    assert float((single[0] - double).abs().max()) < 0.02
