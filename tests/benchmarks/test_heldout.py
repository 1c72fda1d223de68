"""The held-out suite: its plan, its tasks and schedules, and the training of one run."""

import inspect
import math
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.heldout.runs import POINTS, HeldOutRun, plan
from benchmarks.heldout.schedules import ORDER, TUNED
from benchmarks.heldout.tasks import TASKS
from benchmarks.suites.problem import Data, NetworkProblem, Split
from benchmarks.suites.runs import LOSS, Run
from benchmarks.suites.schedules import HAND_MADE, LEARNED, RIVALS, Setting, check_packages, fingerprint
from metalr.compare.record import Record
from tests.conftest import random_policy
from tests.text import DATA, datasets_cache, needs_data

__all__ = ["datasets_cache"]


def trained(folder: Path, key: Run, data: str | None = None) -> Record:
    HeldOutRun(key, folder, data, key.schedule if key.schedule in LEARNED else "").run()
    record = Record.load(HeldOutRun(key, folder).folder)
    assert record is not None
    return record


def noise(seed: int = 0, dropout: float = 0.5) -> NetworkProblem:
    generator = torch.Generator().manual_seed(7)
    rows = Split((torch.randn(40, 3, 4, 4, generator=generator),), torch.arange(40) % 2)
    network = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, 2)
    )
    return NetworkProblem(network, Data(rows, rows.rows(slice(8))), 8, seed)


def test_the_runs_are_every_combination_once():
    policies = {"default": "d", "anytime": "a", "boosting": "b", "boosting_anytime": "t"}
    runs = plan(list(TASKS), ORDER, rates=8, seeds=3, scale=1.0, policies=policies)
    assert len(set(runs)) == len(runs)
    cells = Counter(run.cell for run in runs if run.optimizer != "own")
    assert set(cells.values()) == {8 * 3 * (len(TUNED) + len(LEARNED))}
    assert len(cells) == 2 * sum(len(task.optimizers) for task in TASKS.values())
    assert all(task.horizons[1] == 5 * task.horizons[0] for task in TASKS.values())
    taken = {(run.schedule, run.task == "xgboost", run.policy) for run in runs if run.schedule in LEARNED}
    assert taken == {
        ("default", False, "d"),
        ("default", True, "b"),
        ("anytime", False, "a"),
        ("anytime", True, "t"),
    }
    assert {run.policy for run in runs if run.schedule not in LEARNED} == {""}
    own = [run for run in runs if run.optimizer == "own"]
    assert {run.task for run in own} == {*TASKS} - {"xgboost"}
    assert {(run.schedule, run.rate) for run in own} == {(name, rival.rate) for name, rival in RIVALS.items()}
    for optimizer, usual in (("sgd", 0.1), ("adamw", 1e-3), ("boosting", 0.1)):
        rates = sorted({run.rate for run in runs if run.optimizer == optimizer})
        assert len(rates) == 8
        assert rates[-1] / rates[0] == pytest.approx(1e4)
        assert math.sqrt(rates[0] * rates[-1]) == pytest.approx(usual)


def test_rivals_run_at_the_rate_that_their_packages_have_by_default():
    import dadaptation
    import prodigyopt
    import schedulefree

    classes = {
        "prodigy_cosine": prodigyopt.Prodigy,
        "schedule_free_adamw": schedulefree.AdamWScheduleFree,
        "schedule_free_sgd": schedulefree.SGDScheduleFree,
        "d_adaptation": dadaptation.DAdaptAdam,
    }
    published = {name: inspect.signature(each).parameters["lr"].default for name, each in classes.items()}
    assert published == {name: rival.rate for name, rival in RIVALS.items()}


def test_all_schedules_of_a_seed_see_the_same_weights_batches_and_dropout():
    def losses(problem: NetworkProblem, evaluate: bool) -> list[float]:
        found = []
        for _ in range(7):  # more than an epoch
            found.append(float(problem.loss().detach()))
            if evaluate:
                problem.val_loss()
                problem.val_metric()
        return found

    assert losses(noise(), True) == losses(noise(), False)
    assert losses(noise(), False) != losses(noise(seed=1), False)


def test_recalibration_measures_batch_norm_at_the_present_weights():
    problem = noise(dropout=0.0)
    norm = problem.model[1]
    with torch.no_grad():
        problem.model[0].bias.add_(5.0)
    problem.recalibrate()
    assert float(norm.running_mean.mean()) > 3.0


def test_outputs_that_are_not_numbers_have_a_metric():
    problem = noise()
    with torch.no_grad():
        problem.model[-1].weight.fill_(math.nan)
    assert math.isnan(problem.val_loss())
    assert 0.0 <= problem.val_metric() <= 1.0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 1.0, 10: 1.0, 19: 1.0}),
        ("step", {0: 1.0, 9: 1.0, 10: 0.1, 14: 0.1, 15: 0.01, 19: 0.01}),
        ("linear", {0: 1.0, 1: 0.95, 10: 0.5, 19: 0.05}),
        ("cosine", {0: 1.0, 5: (2 + math.sqrt(2)) / 4, 10: 0.5, 15: (2 - math.sqrt(2)) / 4}),
        ("wsd", {0: 0.0, 1: 0.5, 2: 1.0, 15: 1.0, 16: 1.0, 17: 0.5, 19: 1 - math.sqrt(0.75)}),
        ("one_cycle", {0: 1 / 25, 5: 1.0, 19: 1 / 25e4}),
        ("linear_warmup", {0: 0.0, 1: 1.0, 2: 18 / 19, 19: 1 / 19}),  # 6 % of 20 steps is one
    ],
)
def test_schedules_have_their_shapes(optimizer: str, schedule: str, expected: dict[int, float]):
    training = Setting(optimizer, schedule, 0.5, 20).start(noise())
    rates = []
    for _ in range(20):
        rates.append(training.optimizer.param_groups[0]["lr"] / 0.5)
        training.step(sum(p.square().sum() for p in training.optimizer.param_groups[0]["params"]))
    assert {step: rates[step] for step in expected} == pytest.approx(expected)


@pytest.mark.parametrize("schedule", HAND_MADE)
def test_every_schedule_of_the_suite_ends_with_the_run(schedule: str):
    """Over a horizon of twice the steps the last rate would be a high one; a constant rate has no end."""
    training = Setting("adamw", schedule, 0.5, 40).start(noise())
    for _ in range(40):
        training.step(sum(p.square().sum() for p in training.optimizer.param_groups[0]["params"]))
    assert (training.rate <= 0.15 * 0.5) == (schedule != "constant")


def test_schedule_free_is_evaluated_at_its_average_with_batch_norm_measured_there():
    problem = noise(dropout=0.0)
    training = Setting("own", "schedule_free_sgd", 1.0, 20).start(problem)
    for _ in range(5):
        training.step(problem.loss())
    before, mean = problem.model[-1].weight.detach().clone(), problem.model[1].running_mean.clone()
    with training.evaluation():
        assert not torch.equal(problem.model[-1].weight, before)
        assert not torch.equal(problem.model[1].running_mean, mean)
    torch.testing.assert_close(problem.model[-1].weight.detach(), before)


def test_prodigy_has_a_cosine_over_the_horizon_and_the_rate_of_a_step_is_noted():
    training = Setting("own", "prodigy_cosine", 1.0, 20).start(noise())
    rates = []
    for _ in range(20):
        training.step(sum(p.square().sum() for p in training.optimizer.param_groups[0]["params"]))
        rates.append(training.rate)
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(20)])


@pytest.mark.parametrize("schedule", ORDER)
def test_every_schedule_trains_the_digits(schedule: str, tmp_path: Path):
    optimizer, rate = ("own", RIVALS[schedule].rate) if schedule in RIVALS else ("adamw", 0.005)
    key = Run("digits", optimizer, 40, schedule, rate, 0)
    record = trained(tmp_path / "one", key)
    steps, losses = record.curves[LOSS]
    assert (len(steps), steps[0], steps[-1]) == (POINTS + 1, 0, 40)
    assert losses[-1] < (1.0 if schedule == "d_adaptation" else 0.7) * losses[0]  # that one starts slowly
    assert record.final[LOSS] == losses[-1]
    assert 0.0 < record.final[TASKS["digits"].metric_name] <= 1.0
    assert trained(tmp_path / "two", key).curves[LOSS] == (steps, losses)


def test_runs_of_another_policy_stand_beside_each_other_and_any_other_change_has_another_fingerprint(tmp_path: Path):
    key = Run("digits", "sgd", 10, "default", 0.1, 0, "abc-2")
    run = HeldOutRun(key, tmp_path)
    assert run.folder == tmp_path / "digits-sgd-10" / "default-abc-2" / "rate=0.1" / "seed=0"
    others = [HeldOutRun(replace(key, **change), tmp_path) for change in ({"seed": 1}, {"policy": "x"}, {"steps": 11})]
    assert len({each.name for each in (run, *others)}) == len({each.fingerprint() for each in (run, *others)}) == 4
    assert HeldOutRun(key, tmp_path / "elsewhere", "/data", "file").fingerprint() == run.fingerprint()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dadaptation", None)
    check_packages(["cosine", "prodigy_cosine"])
    with pytest.raises(ImportError, match=r"'d_adaptation' needs dadaptation.*\[experiments\].*--schedules"):
        check_packages(["cosine", "d_adaptation"])


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule='nope'.*cosine"):
        Setting("sgd", "nope", 0.1, 10).start(noise())


def test_a_fingerprint_is_of_the_weights_and_not_of_the_file(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        random_policy(seed).save(tmp_path / f"{name}.safetensors")
    a, b, c = (fingerprint(str(tmp_path / f"{name}.safetensors")) for name in "abc")
    assert a == b != c


@needs_data
@pytest.mark.parametrize("task", [name for name in TASKS if name != "digits"])
def test_every_task_on_its_real_data(task: str, tmp_path: Path):
    optimizer = TASKS[task].optimizers[-1]
    rate = {"adamw": 0.005, "boosting": 0.1}[optimizer]
    for schedule in ("cosine", "default"):
        losses = trained(tmp_path, Run(task, optimizer, 24, schedule, rate, 0), DATA).curves[LOSS][1]
        assert all(map(math.isfinite, losses))
        assert losses[-1] < losses[0] + (0.01 if task == "sst2" else 0.0)  # that one takes 80 steps
