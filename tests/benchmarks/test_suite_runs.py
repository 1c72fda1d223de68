"""A suite from end to end, small; and that the pages in docs are what the rows beside them give."""

import csv
import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.suites import command
from benchmarks.suites.page import figure_lines
from benchmarks.suites.report import run_and_report, stored_results
from metalr.compare.record import Record
from metalr.compare.report import write_report
from metalr.compare.runner import finished, run
from tests.benchmarks.in_process import InProcess
from tests.benchmarks.toy import SUITE, ToyRun, toy_runs
from tests.conftest import random_policy

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = ("heldout", "final", "finetuning", "long", "trees")
"""Suites that have been run."""
FILES = ("toy.csv", "toy.json", "toy.md")


def reported(runs, executor, docs: Path, **options):
    return run_and_report(runs, executor, SUITE.schedules, docs, **options)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Leaves out compare's report of cells and Lightning's finder, which take seconds and have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.suites.report.write_report", lambda axes, runs, outcome, out: out / "report.md")
        patch.setattr("benchmarks.suites.runs.find_rate", lambda problem, optimizer, usual: usual)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished suite: its folder, with the page in docs, and its runs; it was interrupted once."""
    out = tmp_path_factory.mktemp("toy")
    runs = toy_runs(out)
    first, second = InProcess(stop_after=10), InProcess()
    with pytest.raises(SystemExit) as stopped:
        reported(runs, first, out / "docs")
    assert stopped.value.code == 130
    assert first.done == runs[:10]
    findings = reported(runs, second, out / "docs")
    assert second.done == runs[10:]
    assert findings.runs == len(runs)
    return out, runs


def test_the_runs_are_every_combination_once(whole):
    _, runs = whole
    tuned, networks = (2 + 3) * 2, (2 + 3) * 2 + 1  # learned and hand-made from two rates; the finder from none
    sgd, adamw = networks + 1, networks + 3  # DoG, and three rates of schedule-free AdamW
    assert len(runs) == len({each.key for each in runs}) == 2 * (sgd + 2 * adamw + tuned)


def test_the_page_has_every_figure_with_its_interval_and_its_parts(whole):
    out, runs = whole
    page = (out / "docs" / "toy.md").read_text()
    stored = json.loads((out / "docs" / "toy.json").read_text())
    for part in ("networks", "networks, short", "networks without noise", "noise alone", "boosted trees", "all"):
        each = stored["splits"][part]["default_median_over_best_linear_warmup"]
        cell = f"{each['value']:.3f} ({each['low']:.3f} to {each['high']:.3f})"
        assert f"| {part} | {each['cells']} | {cell} |" in page
    assert page.count("| linear to zero, warm-up of 6 % | 1.000 (1.000 to 1.000) |") == 1  # over itself
    assert "| noise | noise | sgd, adamw | 4, 12 | drawn | new | drawn | drawn |" in page
    assert "from each of 2 initial rates, log-spaced over\n4 decades, that is 2 on either side" in page
    for words in (
        "mean of the two\nmiddle losses",
        "enters its rate's mean as 10\ntimes",
        "same seeds and the same held-out",
    ):
        assert words in page
    assert f"\nruns: {len(runs)}\n" in page
    assert (out / "docs" / "toy.png").stat().st_size > 10_000


def test_a_row_of_the_file_is_a_run_with_its_curve_and_its_metric(whole):
    out, runs = whole
    with (out / "docs" / "toy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(runs)
    for row, each in zip(rows, runs, strict=True):
        record = Record.load(each.folder)
        key = each.key
        assert (row["task"], row["schedule"], float(row["rate"]), row["seed"]) == (
            key.task,
            key.schedule,
            key.rate,
            str(key.seed),
        )
        curve = [float(row[f"loss_{i}"]) for i in range(SUITE.points + 1)]
        assert curve == pytest.approx(record.curves["val/loss"][1], rel=1e-5)
        assert float(row["final"]) == curve[-1]
        assert float(row["metric"]) == pytest.approx(record.final[each.task.metric_name], rel=1e-5)


def test_one_command_recomputes_every_figure_of_the_page_from_the_file_of_rows(whole, tmp_path):
    out, _ = whole
    command.main(ToyRun, tmp_path / "none", source=out / "docs" / "toy.csv", docs=tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_text() == (out / "docs" / name).read_text()
    rows = (out / "docs" / "toy.csv").read_text().splitlines(keepends=True)
    (tmp_path / "fewer.csv").write_text("".join(rows[:-20]))
    command.main(ToyRun, tmp_path / "none", source=tmp_path / "fewer.csv", docs=tmp_path)
    assert (tmp_path / "toy.md").read_text() != (out / "docs" / "toy.md").read_text()


def test_a_new_policy_has_its_own_cells_run_alone(whole, tmp_path):
    out, runs = whole
    random_policy(3).save(tmp_path / "new.safetensors")
    again = InProcess()
    reported(toy_runs(out, default=str(tmp_path / "new.safetensors")), again, tmp_path)
    changed = [each for each in runs if each.schedule == "default" and each.key.task != "trees"]
    assert [each.key.cell for each in again.done] == [each.key.cell for each in changed]
    assert {each.schedule for each in again.done} == {"default"}
    before = InProcess()
    findings = reported(runs, before, tmp_path)  # the policy of before: its runs are still there
    assert before.done == []
    assert figure_lines(findings)[:-1] == (out / "docs" / "toy.md").read_text().split("```")[5].splitlines()[1:-1]


def test_baselines_that_are_stored_in_the_file_of_rows_are_not_run_again(whole, tmp_path):
    """On a machine without the folders of the runs, as with a new clone."""
    out, runs = whole
    random_policy(3).save(tmp_path / "new.safetensors")
    fresh = toy_runs(tmp_path / "runs", default=str(tmp_path / "new.safetensors"))
    stored = stored_results(fresh, out / "docs" / "toy.csv")
    executor = InProcess()
    findings = reported(fresh, executor, tmp_path, stored=stored)
    assert len(executor.done) == len(runs) - len(stored) == 2 * 3 * 2
    assert {each.schedule for each in executor.done} == {"default"}
    assert findings.runs == len(runs)


def test_baselines_alone_have_a_page_and_no_report_of_a_candidate(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.suites.report.write_report", lambda *_: pytest.fail("there is no candidate"))
    executor = InProcess()
    findings = run_and_report(toy_runs(tmp_path), executor, SUITE.baselines, tmp_path / "docs")
    assert findings.runs == len(executor.done) > 0
    assert (tmp_path / "docs" / "toy.md").is_file()


def test_rows_of_a_task_that_has_changed_are_not_taken(whole, monkeypatch):
    out, runs = whole
    assert len(stored_results(runs, out / "docs" / "toy.csv")) == len(runs)
    monkeypatch.setitem(SUITE.tasks, "line", replace(SUITE.tasks["line"], title="another line"))
    assert {run.task for run in stored_results(runs, out / "docs" / "toy.csv")} == {"noise", "trees"}


def test_a_run_that_fails_is_named_and_the_others_are_reported_by_compare_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.suites.report.write_report", write_report)
    runs = [each for each in toy_runs(tmp_path) if each.key.task == "trees"]

    class Failing(InProcess):
        def ended(self):
            return [(each, each.schedule != "constant") for each, _ in super().ended()]

    with pytest.raises(SystemExit, match=r"4 runs failed, the first trees-boosting-2/constant"):
        reported(runs, Failing(), tmp_path / "docs")
    assert f"\nruns: {len(runs) - 4}\n" in (tmp_path / "docs" / "toy.md").read_text()
    assert "trees-boosting-4" in (tmp_path / "report.md").read_text()


@pytest.mark.slow
def test_a_worker_process_gives_what_this_process_does(tmp_path):
    from benchmarks.denormals import flush_denormals
    from metalr.compare.pool import PoolExecutor

    ours, theirs = (
        [each for each in toy_runs(tmp_path / name) if (each.schedule, each.key.task) == ("cosine", "line")]
        for name in "ab"
    )
    for name in "ab":
        (tmp_path / name).mkdir()
    run(ours, finished(ours), InProcess(), Console(quiet=True))
    outcome = run(theirs, finished(theirs), PoolExecutor(1, flush_denormals), Console(quiet=True))
    assert len(outcome.records) == len(theirs) == 4
    for one, other in zip(ours, theirs, strict=True):
        assert Record.load(one.folder).curves["val/loss"] == Record.load(other.folder).curves["val/loss"]


def test_the_estimate_times_each_task_once_and_counts_steps_evaluations_and_the_finders_batches(tmp_path, monkeypatch):
    from benchmarks.suites import estimate

    timed, measure = [], estimate._measure

    def seconds(each):
        timed.append(each.key.task)
        step, evaluation = measure(each)
        assert step > 0.0 < evaluation
        return 1.0, 2.0

    monkeypatch.setattr(estimate, "_measure", seconds)
    runs = [each for each in toy_runs(tmp_path) if each.key.task in ("noise", "trees")]
    found = sum(each.schedule == "finder_cosine" for each in runs)
    steps = sum(each.key.steps for each in runs) + 100 * found
    assert estimate.core_seconds(runs) == steps * 1.0 + len(runs) * (4 + 2) * 2.0
    assert timed == ["noise", "trees"]


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="only=noise,nope: unknown nope; choose of noise, line, trees"):
        command.main(ToyRun, tmp_path, only="noise,nope")
    with pytest.raises(ValueError, match="schedules=nope"):
        command.main(ToyRun, tmp_path, schedules="nope")
    with pytest.raises(ValueError, match="horizons=5: unknown 5; choose of 2, 4, 12"):
        command.main(ToyRun, tmp_path, horizons="5")
    with pytest.raises(ValueError, match="rates=1"):
        command.main(ToyRun, tmp_path, rates=1)
    with pytest.raises(ValueError, match="scale=0"):
        command.main(ToyRun, tmp_path, scale=0.0)


def assert_close(made, stored) -> None:
    """Holds two contents of JSON to each other, but for how versions of numpy and scipy round."""
    if isinstance(stored, dict):
        assert list(made) == list(stored)
        for key in stored:
            assert_close(made[key], stored[key])
    elif isinstance(stored, list):
        assert len(made) == len(stored)
        for one, other in zip(made, stored, strict=True):
            assert_close(one, other)
    else:
        assert made == pytest.approx(stored, rel=1e-9) if isinstance(stored, float) else made == stored


@pytest.mark.parametrize("name", MEASURED)
def test_the_page_in_docs_is_what_the_rows_beside_it_give(name: str, tmp_path):
    """By the command that the page names."""
    rows = DOCS / f"{name}.csv"
    importlib.import_module(f"benchmarks.{name}.__main__").main(source=rows, docs=tmp_path)
    assert (tmp_path / f"{name}.md").read_text() == (DOCS / f"{name}.md").read_text()
    made, stored = (json.loads((folder / f"{name}.json").read_text()) for folder in (tmp_path, DOCS))
    assert_close(made, stored)
