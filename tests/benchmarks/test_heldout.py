"""The development suite: its plan, and its tasks on real data."""

import math
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.heldout.suite import SUITE, HeldOutRun
from benchmarks.heldout.tasks import TASKS
from benchmarks.suites.plan import plan
from benchmarks.suites.runs import LOSS, Run
from benchmarks.suites.schedules import FOUND, LEARNED, RIVALS, TUNED
from metalr.compare.record import Record
from tests.benchmarks.trained import trained
from tests.text import DATA, datasets_cache, needs_data

__all__ = ["datasets_cache"]


def record_of(folder: Path, key: Run, data: str | None = None) -> Record:
    return trained(HeldOutRun(key, folder, data, SUITE.policy_of(key.task, key.schedule)))


def test_the_runs_are_every_combination_once():
    policies = {"default": "d", "anytime": "a", "boosting": "b", "boosting_anytime": "t"}
    runs = plan(SUITE, policies)
    assert len(set(runs)) == len(runs)
    tuned = Counter(run.cell for run in runs if run.schedule in TUNED or run.schedule in LEARNED)
    assert set(tuned.values()) == {8 * 3 * (len(TUNED) + len(LEARNED))}
    assert len(tuned) == 2 * sum(len(task.optimizers) for task in TASKS.values()) == 20
    assert all(task.horizons[1] == 5 * task.horizons[0] for task in TASKS.values())
    taken = {(run.schedule, run.task == "xgboost", run.policy) for run in runs if run.schedule in LEARNED}
    assert taken == {
        ("default", False, "d"),
        ("default", True, "b"),
        ("anytime", False, "a"),
        ("anytime", True, "t"),
    }
    assert {run.policy for run in runs if run.schedule not in LEARNED} == {""}
    for name in RIVALS:
        assert {run.optimizer for run in runs if run.schedule == name} == {RIVALS[name].base}
    for name in FOUND:
        assert {run.optimizer for run in runs if run.schedule == name} == {"sgd", "adamw"}
    for optimizer, usual in (("sgd", 0.1), ("adamw", 1e-3), ("boosting", 0.1)):
        rates = sorted({run.rate for run in runs if run.optimizer == optimizer and run.schedule == "cosine"})
        assert len(rates) == 8
        assert rates[-1] / rates[0] == pytest.approx(1e4)
        assert math.sqrt(rates[0] * rates[-1]) == pytest.approx(usual)


def test_digits_are_the_data_that_meta_training_draws():
    assert [name for name, task in TASKS.items() if task.drawn] == ["digits"]


@pytest.mark.parametrize("schedule", ["cosine", "default"])
def test_the_digits_are_learned(schedule: str, tmp_path: Path):
    losses = record_of(tmp_path, Run("digits", "adamw", 40, schedule, 0.005, 0)).curves[LOSS][1]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize("task", [name for name in TASKS if name != "digits"])
def test_every_task_on_its_real_data(task: str, tmp_path: Path):
    optimizer = TASKS[task].optimizers[-1]
    rate = {"adamw": 0.005, "boosting": 0.1}[optimizer]
    for schedule in ("cosine", "default"):
        losses = record_of(tmp_path, Run(task, optimizer, 24, schedule, rate, 0), DATA).curves[LOSS][1]
        assert all(map(math.isfinite, losses))
        assert losses[-1] < losses[0] + (0.01 if task == "sst2" else 0.0)  # that one takes 80 steps
