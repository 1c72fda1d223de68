"""What sets the rate in the suites, and the training of one run."""

import inspect
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.suites import finder
from benchmarks.suites.finder import find_rate
from benchmarks.suites.problem import NetworkProblem
from benchmarks.suites.runs import LOSS, Run
from benchmarks.suites.schedules import (
    FOUND,
    LEARNED,
    RIVALS,
    TITLES,
    TUNED,
    WARM_UP,
    check_packages,
    chosen_schedules,
    fingerprint,
    rates_of,
    runs_with,
)
from benchmarks.suites.training import Averaged, Setting
from metalr.compare.record import Record
from tests.benchmarks.toy import SUITE, ToyRun, line, noise
from tests.benchmarks.trained import trained
from tests.conftest import random_policy

USUAL = {"sgd": 0.1, "adamw": 1e-3, "boosting": 0.1}


def record_of(folder: Path, key: Run) -> Record:
    return trained(ToyRun(key, folder, None, key.schedule if key.schedule in LEARNED else ""))


def squares(training) -> torch.Tensor:
    """A loss without a problem's batches."""
    return sum(p.square().sum() for group in training.optimizer.param_groups for p in group["params"])


def factors(optimizer: str, schedule: str, steps: int = 20) -> list[float]:
    """The rate over the initial one, by step."""
    training = Setting(optimizer, schedule, 0.5, steps).start(noise())
    found = []
    for _ in range(steps):
        training.step(squares(training))
        found.append(training.rate / 0.5)
    return found


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


def test_a_learned_schedule_is_told_how_many_steps_make_an_epoch():
    problem = noise()
    rows = len(problem.train.labels)
    seen = torch.cat([next(problem.batches).inputs[0] for _ in range(problem.steps_per_epoch)])
    assert rows - problem.batch_size < len(seen.unique(dim=0)) == len(seen) <= rows
    assert (
        Setting("sgd", "default", 0.5, 20, "default").start(problem).meta_lr.steps_per_epoch == problem.steps_per_epoch
    )


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


def test_a_regression_is_scored_by_the_share_of_the_variance_that_it_explains():
    problem, labels = line(), torch.tensor([1.0, 2.0, 3.0])
    assert problem.metric(labels, labels) == 1.0
    assert problem.metric(labels.mean().expand(3), labels) == problem.chance() == 0.0
    assert problem.metric(labels + 0.5, labels) == pytest.approx(1 - 0.25 / (2 / 3))
    assert problem.metric(-labels, labels) == 0.0
    assert float(problem.criterion(labels + 0.5, labels)) == 0.25


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 1.0, 10: 1.0, 19: 1.0}),
        ("cosine", {0: 1.0, 10: 0.5, 19: 0.5 * (1 + math.cos(math.pi * 0.95))}),  # to its end, and not over twice that
        ("linear", {0: 1.0, 10: 0.5, 19: 0.05}),
        ("step", {9: 1.0, 10: 0.1, 14: 0.1, 15: 0.01, 19: 0.01}),
        ("wsd", {0: 0.0, 1: 0.5, 2: 1.0, 15: 1.0, 16: 1.0, 17: 0.5, 19: 1 - math.sqrt(0.75)}),
        ("one_cycle", {0: 1 / 25, 5: 1.0, 19: 1 / 25e4}),
        ("linear_warmup", {0: 0.5, 1: 1.0, 2: 18 / 19, 19: 1 / 19}),  # 6 % of 20 steps is one
        ("cosine_warmup", {0: 0.5, 1: 1.0, 19: 0.5 * (1 + math.cos(math.pi * 18 / 19))}),
    ],
)
def test_schedules_have_their_shapes(optimizer: str, schedule: str, expected: dict[int, float]):
    rates = factors(optimizer, schedule)
    assert {step: rates[step] for step in expected} == pytest.approx(expected)


@pytest.mark.parametrize("schedule", [name for name in TUNED if name not in ("constant", "plateau")])
def test_every_schedule_with_a_horizon_ends_with_the_run(schedule: str):
    """Over a horizon of twice the steps the last rate would be a high one."""
    assert factors("adamw", schedule, steps=40)[-1] <= 0.15


@pytest.mark.parametrize("schedule", ["prodigy_cosine", "prodigy_plain_cosine", "d_adaptation_cosine"])
def test_rivals_with_a_cosine_end_near_zero(schedule: str):
    rates = factors("adamw", schedule)
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(20)])


def test_a_plateau_divides_the_rate_when_two_evaluations_are_no_better():
    training = Setting("sgd", "plateau", 0.5, 20).start(noise())
    seen = []
    for loss in (2.0, 1.0, 1.5, 0.5, 0.6, 0.7, 0.8, math.nan):
        training.observe(loss)
        seen.append(training.optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 0.05, 0.05, 0.005])


def test_rivals_have_the_settings_that_their_authors_advise():
    prodigy = Setting("adamw", "prodigy_cosine", 1.0, 100).start(noise()).optimizer.defaults
    assert (prodigy["safeguard_warmup"], prodigy["use_bias_correction"]) == (True, True)
    plain = Setting("adamw", "prodigy_plain_cosine", 1.0, 100).start(noise()).optimizer.defaults
    assert (plain["safeguard_warmup"], plain["use_bias_correction"]) == (False, False)
    adapted = Setting("adamw", "d_adaptation_cosine", 1.0, 100).start(noise()).optimizer.defaults
    assert adapted["decouple"]
    for schedule in ("schedule_free_adamw", "schedule_free_sgd"):
        group = Setting("", schedule, 1.0, 100).start(noise()).optimizer.param_groups[0]
        assert group["warmup_steps"] == round(100 * WARM_UP) == 6
    dog = Setting("sgd", "dog", 1.0, 100).start
    assert (dog(noise()).optimizer.defaults["reps_rel"], dog(line()).optimizer.defaults["reps_rel"]) == (1e-4, 1e-6)


def test_rates_of_rivals_include_the_default_that_is_published():
    import dadaptation
    import dog
    import prodigyopt
    import schedulefree

    classes = {
        "prodigy_cosine": prodigyopt.Prodigy,
        "prodigy_plain_cosine": prodigyopt.Prodigy,
        "d_adaptation_cosine": dadaptation.DAdaptAdam,
        "schedule_free_adamw": schedulefree.AdamWScheduleFree,
        "schedule_free_sgd": schedulefree.SGDScheduleFree,
        "dog": dog.DoG,
    }
    assert classes.keys() == RIVALS.keys()
    for name, each in classes.items():
        rates = rates_of(name, USUAL[RIVALS[name].base], 4.0, 8)
        assert len(rates) == (3 if name.startswith("schedule_free") else 1)
        assert inspect.signature(each).parameters["lr"].default in rates


def test_a_rival_is_run_in_the_cells_of_its_base_alone_and_trees_have_neither_rivals_nor_a_finder():
    for name in TITLES:
        where = {optimizer for optimizer in USUAL if runs_with(name, optimizer)}
        if name in RIVALS:
            assert where == {RIVALS[name].base}
        else:
            assert where == USUAL.keys() - ({"boosting"} if name in FOUND else set())


def test_schedule_free_is_evaluated_at_its_average_with_batch_norm_measured_there():
    problem = noise(dropout=0.0)
    training = Setting("sgd", "schedule_free_sgd", 1.0, 20).start(problem)
    for _ in range(5):
        training.step(problem.loss())
    before, mean = problem.model[-1].weight.detach().clone(), problem.model[1].running_mean.clone()
    with training.evaluation():
        assert not torch.equal(problem.model[-1].weight, before)
        assert not torch.equal(problem.model[1].running_mean, mean)
    torch.testing.assert_close(problem.model[-1].weight.detach(), before)


def test_dog_is_evaluated_at_its_average_and_trains_on_its_own_weights():
    problem = line()
    training = Setting("sgd", "dog", 1.0, 20).start(problem)
    assert isinstance(training, Averaged)
    own = problem.model
    weights = []
    for _ in range(3):
        training.step(problem.loss())
        weights.append(own[0].weight.detach().clone())
    expected = weights[0]  # the shares of the newest are 9/9, 9/10, 9/11 (Shamir and Zhang 2013, gamma 8)
    for t in (2, 3):
        expected = expected + 9 / (8 + t) * (weights[t - 1] - expected)
    with training.evaluation():
        torch.testing.assert_close(problem.model[0].weight.detach(), expected)
    assert problem.model is own


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_finder_suggests_a_rate_at_which_the_problem_learns(optimizer: str):
    rate = find_rate(line(), optimizer, 123.0)
    assert 1e-8 < rate < 1.0
    problem = line()
    before = problem.val_loss()
    training = Setting(optimizer, "finder_one_cycle", rate, 200).start(problem)
    for _ in range(200):
        training.step(problem.loss())
    assert problem.val_loss() < before


def test_where_the_finder_suggests_nothing_the_usual_rate_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(finder, "BATCHES", 5)  # fewer than the ten that Lightning skips
    assert find_rate(line(), "sgd", 0.123) == 0.123


@pytest.mark.parametrize("schedule", TITLES)
def test_every_schedule_trains(schedule: str, tmp_path: Path):
    optimizer = RIVALS[schedule].base if schedule in RIVALS else "adamw"
    rate = 1.0 if schedule in ("dog", "prodigy_cosine", "prodigy_plain_cosine", "d_adaptation_cosine") else 0.05
    key = Run("line", optimizer, 60, schedule, rate, 0)
    record = record_of(tmp_path / "one", key)
    steps, losses = record.curves[LOSS]
    assert (len(steps), steps[0], steps[-1]) == (SUITE.points + 1, 0, 60)
    if schedule == "d_adaptation_cosine":  # overestimates the distance on so small a problem
        assert all(map(math.isfinite, losses))
        assert len(set(losses)) == len(losses)
    else:
        assert losses[-1] < losses[0]
    assert record.final[LOSS] == losses[-1]
    assert record_of(tmp_path / "two", key).curves[LOSS] == (steps, losses)


def test_runs_of_another_policy_stand_beside_each_other_and_any_other_change_has_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    key = Run("noise", "sgd", 10, "default", 0.1, 0, "abc-2")
    run = ToyRun(key, tmp_path)
    assert run.folder == tmp_path / "noise-sgd-10" / "default-abc-2" / "rate=0.1" / "seed=0"
    others = [ToyRun(replace(key, **change), tmp_path) for change in ({"seed": 1}, {"policy": "x"}, {"steps": 11})]
    assert len({each.name for each in (run, *others)}) == len({each.fingerprint() for each in (run, *others)}) == 4
    assert ToyRun(key, tmp_path / "elsewhere", "/data", "file").fingerprint() == run.fingerprint()
    before = run.fingerprint()
    monkeypatch.setitem(TITLES, "default", "with another setting")
    assert run.fingerprint() != before


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dog", None)
    check_packages(["cosine", "prodigy_cosine"])
    with pytest.raises(ImportError, match=r"'dog' needs dog-optimizer.*\[experiments\].*--schedules"):
        check_packages(["cosine", "dog"])


def test_an_unknown_schedule_is_named():
    with pytest.raises(ValueError, match="schedule='nope'.*cosine"):
        Setting("sgd", "nope", 0.1, 10).start(noise())
    with pytest.raises(ValueError, match="schedules=cosine,nope: unknown nope; choose of learned, baselines, default"):
        chosen_schedules("cosine,nope", SUITE.schedules)


def test_groups_of_schedules_stand_for_those_that_a_suite_has():
    assert chosen_schedules("learned", ("default", "cosine")) == ["default"]
    assert chosen_schedules("cosine,learned", SUITE.schedules) == ["cosine", *LEARNED]
    assert {*chosen_schedules("baselines", SUITE.schedules)} == {*SUITE.baselines}
    assert chosen_schedules(None, SUITE.schedules) == list(SUITE.schedules)


def test_a_fingerprint_is_of_the_weights_and_not_of_the_file(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        random_policy(seed).save(tmp_path / f"{name}.safetensors")
    a, b, c = (fingerprint(str(tmp_path / f"{name}.safetensors")) for name in "abc")
    assert a == b != c
