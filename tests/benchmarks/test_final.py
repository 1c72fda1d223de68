"""The final suite: that it has nothing of the development suite, and that every task runs on its data."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks.final import data
from benchmarks.final.suite import SUITE, FinalRun
from benchmarks.final.tasks import TASKS
from benchmarks.heldout.tasks import TASKS as DEVELOPMENT
from benchmarks.suites.plan import plan
from benchmarks.suites.runs import LOSS, Run
from tests.benchmarks.trained import trained
from tests.text import DATA, datasets_cache, needs_data

__all__ = ["datasets_cache"]

REAL = [name for name in TASKS if name not in ("photograph", "diabetes", "series")]
"""Tasks whose data is not at hand without METALR_DATA."""


def learns(task: str, folder: Path, root: str | None) -> None:
    """A cosine from the usual rate lowers the held-out loss; no learned schedule is looked at here."""
    optimizer = TASKS[task].optimizers[-1]
    run = FinalRun(Run(task, optimizer, 30, "cosine", 3 * SUITE.usual[optimizer], 0), folder, root)
    record = trained(run)
    losses = record.curves[LOSS][1]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    assert record.final["val/chance"] <= record.final[TASKS[task].metric_name] + 0.1


def test_its_tasks_have_names_of_their_own_and_say_which_data_the_development_suite_has():
    assert not TASKS.keys() & DEVELOPMENT.keys()
    assert not any(task.drawn for task in TASKS.values())
    assert [name for name, task in TASKS.items() if "the development suite" in task.new.data] == ["vit", "letters"]
    assert [name for name, task in TASKS.items() if task.new.is_whole] == [
        *("photograph", "series", "rotations", "questions"),
    ]
    runs = plan(SUITE, dict.fromkeys(("default", "anytime", "boosting", "boosting_anytime"), "p"))
    assert len(set(runs)) == len(runs)
    assert {run.schedule for run in runs} == {*SUITE.schedules}


@pytest.mark.parametrize("task", ["photograph", "diabetes", "series"])
def test_a_task_learns_on_data_that_comes_with_the_packages(task: str, tmp_path: Path):
    learns(task, tmp_path, None)


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("task", REAL)
def test_a_task_learns_on_real_data(task: str, tmp_path: Path):
    learns(task, tmp_path, DATA)


def test_the_series_is_chaotic_and_nothing_of_its_end_is_trained_on():
    train, val = data.series(None)
    assert train.inputs[0].shape[1:] == val.inputs[0].shape[1:] == (data.WINDOW, 1)
    joined = torch.cat([train.inputs[0][:, 0, 0], train.inputs[0][-1, 1:, 0], train.labels[-1:]])
    assert not torch.isin(val.labels, joined).any()
    assert 0.5 < float(val.labels.std()) < 1.5


def test_held_out_rows_are_always_the_same_and_are_not_trained_on():
    train, val = data.diabetes(None)
    assert (len(train.labels), len(val.labels)) == (332, 110)
    rows = {tuple(row) for row in train.inputs[0].tolist()}
    assert not rows & {tuple(row) for row in val.inputs[0].tolist()}
    data.diabetes.cache_clear()
    assert torch.equal(data.diabetes(None).val.labels, val.labels)
