"""The held-out suite: its tasks and schedules, that it goes on where it was, and one tiny suite from end to end."""

import csv
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.heldout import __main__ as suite
from benchmarks.heldout import pool
from benchmarks.heldout.data import Data, Split
from benchmarks.heldout.runs import POINTS, Result, Run, initial_lrs, plan, train
from benchmarks.heldout.schedules import LEARNED, TUNED, UNTUNED, Setting, check_packages, fingerprint
from benchmarks.heldout.store import Store
from benchmarks.heldout.tasks import TASKS, NetworkProblem
from tests.conftest import random_policy
from tests.text import DATA, datasets_cache, needs_data

__all__ = ["datasets_cache"]

ALL = (*LEARNED, *TUNED, *UNTUNED)
TINY = {"only": "digits", "rates": 2, "seeds": 1, "scale": 0.03, "jobs": 1}


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    yield
    torch.set_flush_denormal(False)  # the suite counts them as zero; other tests of this process need not


def noise(seed: int = 0, dropout: float = 0.5) -> NetworkProblem:
    generator = torch.Generator().manual_seed(7)
    rows = Split((torch.randn(40, 3, 4, 4, generator=generator),), torch.arange(40) % 2)
    network = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, 2)
    )
    return NetworkProblem(network, Data(rows, rows.rows(slice(8))), 8, seed)


def test_the_grid_of_rates_spans_four_decades_about_the_usual_one():
    for optimizer, usual in (("sgd", 0.1), ("adamw", 1e-3), ("boosting", 0.1)):
        lrs = initial_lrs(optimizer, 8)
        assert lrs[-1] / lrs[0] == pytest.approx(1e4)
        assert math.sqrt(lrs[0] * lrs[-1]) == pytest.approx(usual)
        assert lrs == sorted(set(lrs))


def test_the_plan_is_every_combination_once():
    policies = {"default": "d", "anytime": "a", "boosting": "b", "boosting_anytime": "t"}
    runs = plan(list(TASKS), ALL, rates=8, seeds=3, scale=1.0, policies=policies)
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
    assert {run.lr for run in own} == {None}


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
        ("wsd", {0: 0.0, 1: 0.5, 2: 1.0, 15: 1.0, 16: 1.0, 17: 0.5, 19: 1 - math.sqrt(0.75)}),
        ("one_cycle", {0: 1 / 25, 5: 1.0, 19: 1 / 25e4}),
    ],
)
def test_schedules_have_their_shapes(optimizer: str, schedule: str, expected: dict[int, float]):
    training = Setting(optimizer, schedule, 0.5, 20).start(noise())
    rates = []
    for _ in range(20):
        rates.append(training.optimizer.param_groups[0]["lr"] / 0.5)
        training.step(sum(p.square().sum() for p in training.optimizer.param_groups[0]["params"]))
    assert {step: rates[step] for step in expected} == pytest.approx(expected)


def test_schedule_free_is_evaluated_at_its_average_with_batch_norm_measured_there():
    problem = noise(dropout=0.0)
    training = Setting("own", "schedule_free_sgd", None, 20).start(problem)
    for _ in range(5):
        training.step(problem.loss())
    before, mean = problem.model[-1].weight.detach().clone(), problem.model[1].running_mean.clone()
    with training.evaluation():
        assert not torch.equal(problem.model[-1].weight, before)
        assert not torch.equal(problem.model[1].running_mean, mean)
    torch.testing.assert_close(problem.model[-1].weight.detach(), before)


@pytest.mark.parametrize("schedule", ALL)
def test_every_schedule_trains_the_digits(schedule: str):
    policy = schedule if schedule in LEARNED else ""
    optimizer, lr = ("own", None) if schedule in UNTUNED else ("adamw", 0.005)
    run = Run("digits", optimizer, 40, schedule, lr, 0)
    result = train(run, None, policy)
    assert len(result.curve) == POINTS + 1
    assert result.curve[-1] < (1.0 if schedule == "d_adaptation" else 0.7) * result.curve[0]  # that one starts slowly
    assert train(run, None, policy).curve == result.curve


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "dadaptation", None)
    check_packages(["cosine", "prodigy_cosine"])
    with pytest.raises(ImportError, match=r"'d_adaptation' needs dadaptation.*\[benchmarks\].*--schedules"):
        check_packages(["cosine", "d_adaptation"])


def test_bad_arguments_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="schedule='nope'.*cosine"):
        Setting("sgd", "nope", 0.1, 10).start(noise())
    with pytest.raises(ValueError, match="only=digits,nope: unknown nope; choose of digits"):
        suite.main(out=tmp_path, only="digits,nope")
    with pytest.raises(ValueError, match="schedules=nope"):
        suite.main(out=tmp_path, schedules="nope")
    with pytest.raises(ValueError, match="rates=1"):
        suite.main(out=tmp_path, rates=1)


def test_a_fingerprint_is_of_the_weights_and_not_of_the_file(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        random_policy(seed).save(tmp_path / f"{name}.safetensors")
    a, b, c = (fingerprint(str(tmp_path / f"{name}.safetensors")) for name in "abc")
    assert a == b != c


def test_results_are_read_as_they_were_written(tmp_path: Path):
    store = Store(tmp_path / "deep" / "runs.jsonl")
    finite = Run("digits", "sgd", 10, "cosine", 0.1, 0), Result((2.0, 1.0 / 3.0), 0.5, 0.25)
    broken = Run("digits", "own", 10, "prodigy_cosine", None, 1, "x"), Result((2.0, math.inf), 0.5, 0.25)
    store.add(*finite)
    store.add(*broken)
    read = Store(store.path).results
    assert list(read) == [finite[0], broken[0]]
    assert read[finite[0]] == finite[1]
    assert math.isnan(read[broken[0]].curve[1])  # not a number either way


def test_a_line_cut_off_is_dropped_and_a_damaged_one_is_named(tmp_path: Path):
    path = tmp_path / "runs.jsonl"
    first, second = (Run("digits", "sgd", 10, "cosine", 0.1, seed) for seed in range(2))
    Store(path).add(first, Result((2.0, 1.0), 0.5, 0.25))
    path.write_text(path.read_text() + '{"task": "dig')
    store = Store(path)
    store.add(second, Result((2.0, 1.0), 0.5, 0.25))
    assert list(Store(path).results) == [first, second]
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(ValueError, match="line 3: no result"):
        Store(path)


def test_a_tiny_suite_goes_on_where_it_was_and_repeats_only_what_a_new_policy_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    lines = tmp_path / "runs.jsonl"
    trained: list[Run] = []

    def counted(run: Run, root: str | None, policy: str = "") -> Result:
        if len(trained) == 10:
            raise KeyboardInterrupt
        trained.append(run)
        return train(run, root, policy)

    monkeypatch.setattr(pool, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        suite.main(data=None, out=tmp_path, **TINY)
    assert len(lines.read_text().splitlines()) == 10

    monkeypatch.setattr(pool, "train", train)
    suite.main(data=None, out=tmp_path, docs=tmp_path / "docs", **TINY)
    runs = [
        Run(**{k: v for k, v in json.loads(line).items() if k in Run.__dataclass_fields__}) for line in lines.open()
    ]
    assert len(set(runs)) == len(runs) == 2 * 2 * 2 * 8 + 2 * 4
    assert runs[:10] == trained
    printed = capsys.readouterr().out
    assert "predicted" in printed
    assert f"runs_done: {len(runs)} of {len(runs)}" in printed
    for name in (
        "default_median_over_best_cosine",
        "anytime_worst_over_best_constant",
        "default_wins_over_d_adaptation",
    ):
        assert f"\n{name}: " in printed
    page = (tmp_path / "docs" / "heldout.md").read_text()
    assert "| digits | adamw | 15 |" in page
    assert page.count("| cosine | 1.000 |") == 1  # over itself
    assert (tmp_path / "docs" / "heldout.png").stat().st_size > 10_000
    with (tmp_path / "docs" / "heldout.csv").open() as file:
        assert [row["task"] for row in csv.DictReader(file)] == ["digits"] * 4

    random_policy(3).save(tmp_path / "new.safetensors")
    suite.main(data=None, out=tmp_path, default=str(tmp_path / "new.safetensors"), **TINY)
    added = [json.loads(line) for line in lines.open()][len(runs) :]
    assert len(added) == 2 * 2 * 2
    assert {row["schedule"] for row in added} == {"default"}

    monkeypatch.setattr(pool, "train", None)  # nothing is left to do
    suite.main(data=None, out=tmp_path, **TINY)


def test_two_workers_give_what_one_does(tmp_path: Path):
    for jobs in (1, 2):
        suite.main(data=None, out=tmp_path / str(jobs), schedules="cosine", **TINY | {"jobs": jobs})
    one, two = (Store(tmp_path / name / "runs.jsonl").results for name in "12")
    assert {run: result.curve for run, result in one.items()} == {run: result.curve for run, result in two.items()}
    assert len(one) == 8


@needs_data
@pytest.mark.parametrize("task", [name for name in TASKS if name != "digits"])
def test_every_task_on_its_real_data(task: str):
    optimizer = TASKS[task].optimizers[-1]
    lr = {"adamw": 0.005, "boosting": 0.1}[optimizer]
    for schedule in ("cosine", "default"):
        policy = schedule if schedule in LEARNED else ""
        result = train(Run(task, optimizer, 24, schedule, lr, 0), DATA, policy)
        assert all(map(math.isfinite, result.curve))
        assert result.curve[-1] < result.curve[0] + (0.01 if task == "sst2" else 0.0)  # that one takes 80 steps
        assert 0.0 < result.metric <= 1.0
