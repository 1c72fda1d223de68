"""Steps to thresholds are those of the logged metric, also of a run that was stopped."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metalr.compare.metrics import steps_to
from metalr.inspection import ConvergenceSpeed
from metalr.inspection.convergence_speed import round_numbers
from tests.inspection.fits import events, fit


def test_thresholds_are_reached_where_the_metric_crosses(tmp_path):
    speed = ConvergenceSpeed()
    trainer = fit(tmp_path, speed, epochs=6)
    found = events(Path(trainer.log_dir))
    steps, values = zip(*[(event.step + 1, event.value) for event in found.Scalars("val/loss")], strict=True)
    assert speed.reached
    for each in speed.reached:
        threshold = float(each.label.removeprefix("val/loss "))
        assert each.step == steps_to(steps, values, threshold, "min")
        (event,) = found.Scalars(f"steps_to/val/loss_{threshold:.4g}")
        assert (event.value, event.step) == (each.step, each.step)
        assert found.Scalars(f"seconds_to/val/loss_{threshold:.4g}")[0].value > 0


def test_a_resumed_run_keeps_the_thresholds_that_it_reached(tmp_path):
    first, second = ConvergenceSpeed(), ConvergenceSpeed()
    fit(tmp_path / "half", first, epochs=2).save_checkpoint(tmp_path / "half.ckpt")
    fit(tmp_path / "half", second, epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert second.reached[: len(first.reached)] == first.reached
    labels = [each.label for each in second.reached]
    assert first.reached
    assert len(set(labels)) == len(labels)  # none is told again


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3))
def test_round_numbers_are_round_and_between(one, other):
    low, high = min(one, other), max(one, other)
    numbers = round_numbers(low, high)
    assert all(low <= number < high for number in numbers)
    assert numbers == sorted(numbers, reverse=True)
    assert all(f"{number:e}"[0] in "125" for number in numbers)
    if high / low >= 2.5:
        assert numbers


def test_the_series_is_as_it_is_known():
    assert round_numbers(0.009, 2.3) == [2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01]
    assert round_numbers(0.5, -1.0) == round_numbers(float("nan"), 1.0) == []
    speed = ConvergenceSpeed("val/accuracy", "max")
    speed._first = 0.3
    assert speed._between(0.96) == pytest.approx([0.5, 0.8, 0.9, 0.95])


def test_what_makes_no_sense_is_named(tmp_path):
    with pytest.raises(ValueError, match="mode='least'"):
        ConvergenceSpeed(mode="least")
    with pytest.raises(ValueError, match="thresholds"):
        ConvergenceSpeed(thresholds=[float("nan")])
    with pytest.raises(ValueError, match="val/acuracy is not logged in validation: .*val/loss"):
        fit(tmp_path, ConvergenceSpeed("val/acuracy"), epochs=1)
