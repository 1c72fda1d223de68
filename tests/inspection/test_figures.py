"""Figures say what they show: labels, units, every feature and guard, on a light and on a dark background."""

from dataclasses import replace

import numpy as np
import pytest

from metalr.inspection import MetaHistory, figures
from metalr.plotting.canvas import diverging, image, save_png
from metalr.plotting.palette import THEMES
from tests.conftest import random_policy
from tests.inspection.runs import history, marked, recorded


@pytest.fixture(scope="module")
def run():
    policy = random_policy()
    trace = marked(recorded(policy)[1].trace)
    counts = trace.counts.copy()
    counts[-3:, 1] = (1, 1, 4)
    return policy, replace(trace, counts=counts)


def texts(figure) -> str:
    import matplotlib.text

    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_the_decisions_are_labelled(run):
    figure = figures.of_run(*run)["decisions"](THEMES["light"])
    shown = texts(figure)
    for words in (
        "applied rate",
        "reference schedule",
        "nats",
        "optimizer step",
        "change of s (sum)",
        "constant (biases)",
    ):
        assert words in shown
    for words in ("share of the largest change allowed", "val/loss 0.2", "guard limit", "first 32 steps"):
        assert words in shown
    assert "guard divergence" not in shown  # it did not act
    assert all(name in shown for name in run[0].features)


def test_every_figure_of_a_run_names_every_feature(run):
    drawn = figures.of_run(*run)
    assert set(drawn) == {"decisions", "features", "responses"}
    for name in ("features", "responses"):
        shown = texts(drawn[name](THEMES["light"]))
        assert all(feature in shown for feature in run[0].features)
        assert "dimensionless" in shown


def test_a_figure_is_drawn_on_light_and_on_dark(run, tmp_path):
    draw = figures.of_run(*run)["decisions"]
    light, dark = (image(draw, THEMES[name], dpi=30) for name in ("light", "dark"))
    assert light.shape == dark.shape
    assert light.mean() > 180
    assert dark.mean() < 90
    short = figures.of_run(run[0], run[1].select(slice(4)))["decisions"]
    path = save_png(tmp_path / "deep" / "decisions.png", short, THEMES["dark"], dpi=30)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_short_run_has_one_column():
    policy = random_policy()
    trace = recorded(policy, steps=6)[1].trace
    assert "first 32 steps" not in texts(figures.of_run(policy, trace)["decisions"](THEMES["light"]))


def test_raising_and_lowering_differ_in_lightness_too():
    """In grey, as in print, both ends are darker than the middle; for the colour-blind they are orange and blue."""
    colours = diverging(THEMES["light"])(np.array([0.0, 0.25, 0.5, 0.75, 1.0]))[:, :3]
    grey = colours @ (0.299, 0.587, 0.114)
    assert grey[2] > 0.95
    assert grey[0] < grey[1] < grey[2] > grey[3] > grey[4]
    assert colours[1, 2] > colours[1, 0]
    assert colours[3, 0] > colours[3, 2]


def test_a_history_is_stored_and_drawn(policy, tmp_path):
    kept = history(policy)
    assert len(kept.step) <= 8
    assert kept.curves.shape == (len(kept.step), len(policy.features), kept.grid.shape[1])
    kept.save(tmp_path / "history.safetensors")
    read = MetaHistory.load(tmp_path / "history.safetensors")
    np.testing.assert_array_equal(read.curves, kept.curves)
    assert [runs.name for runs in read.runs] == ["task_a", "task_b"]
    np.testing.assert_array_equal(read.runs[1].learned, kept.runs[1].learned)
    drawn = figures.of_meta(read)
    assert set(drawn) == {"responses_over_time", "fixed_tasks"}
    assert "meta-step" in texts(drawn["responses_over_time"](THEMES["light"]))
    shown = texts(drawn["fixed_tasks"](THEMES["light"]))
    for words in ("task_a", "task_b", "initial rate", "reference schedule", "inner step", "meta-step 190"):
        assert words in shown
    assert set(figures.of_meta(history(policy, runs=False))) == {"responses_over_time"}
