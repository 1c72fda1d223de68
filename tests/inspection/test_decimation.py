"""What is kept of a run is bounded, whatever its length, and the same whenever it is decimated."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalr.inspection.decimation import Decimation, Pace


def kept(total: int, decimation: Decimation, batch: int = 1, jump: int = 1) -> tuple[np.ndarray, int]:
    """Steps that stay, and how many were ever kept for a time."""
    steps = np.zeros(0, dtype=np.int64)
    pending: list[int] = []
    last, ever = -1, 0
    for step in range(0, total, jump):
        if decimation.due(step, last):
            pending.append(step)
            last, ever = step, ever + 1
        if len(pending) == batch or step + jump >= total:
            steps = np.concatenate((steps, np.array(pending, dtype=np.int64)))
            steps, pending = steps[decimation.keep(steps)], []
    return steps, ever


@given(st.integers(1, 900), st.integers(0, 40), st.integers(2, 50), st.integers(1, 40))
def test_few_steps_stay_and_they_are_even(total, first, capacity, batch):
    decimation = Decimation(first, capacity)
    steps, ever = kept(total, decimation, batch)
    assert steps[: min(first, total)].tolist() == list(range(min(first, total)))
    late = steps[steps >= first]
    assert len(late) <= capacity + 1
    assert np.all(np.diff(late) <= 2 * decimation.stride)
    assert total - 1 - steps[-1] < decimation.stride
    assert ever <= first + (capacity + batch) * (2 + np.log2(max(1, total / capacity)))


def test_a_million_steps_are_a_few_thousand_points():
    decimation, last, ever, count = Decimation(32, 512), -1, 0, np.zeros(0, dtype=np.int64)
    step = 0
    while step < 1_000_000:
        if decimation.due(step, last):
            count = np.append(count, step)
            last, ever = step, ever + 1
            count = count[decimation.keep(count)]
        step = step + 1 if step < 32 else (step // decimation.stride + 1) * decimation.stride
    assert len(count) <= 545
    assert (count >= 32).sum() >= 256
    assert ever < 4000


def test_steps_that_are_not_all_seen_are_kept_as_evenly():
    steps, _ = kept(3000, Decimation(4, 32), jump=3)
    assert len(steps[steps >= 4]) <= 33
    assert np.all(np.diff(steps[steps >= 4]) <= 2 * Decimation(4, 32).stride * 128)


def test_a_costly_thing_waits_until_the_time_pays_for_it(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace(share=0.01, cost=2.0)
    assert not pace.due(10)
    now = 200.0
    assert pace.due(10)
    with pace.spend(10):
        now += 4.0
    now = 799.0
    assert not pace.due(20)
    now = 801.0
    assert pace.due(20)
    assert not pace.due(19)


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match="first=-1"):
        Decimation(-1)
    with pytest.raises(ValueError, match="capacity=1"):
        Decimation(0, 1)
    with pytest.raises(ValueError, match="share=0"):
        Pace(0.0)
