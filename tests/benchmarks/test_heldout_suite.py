"""The held-out suite from end to end, small; and that the page in docs is what its stored figures say."""

import csv
import json
import math
from collections import defaultdict
from pathlib import Path
from statistics import fmean, geometric_mean

import pytest
from rich.console import Console

from benchmarks.heldout import __main__ as suite
from benchmarks.heldout.figures import Findings, intervals, metric_figures, ratios_of, win_figures
from benchmarks.heldout.page import figure_lines
from benchmarks.heldout.report import rewrite_docs
from benchmarks.heldout.schedules import ORDER
from benchmarks.suites.schedules import RIVALS
from metalr.compare.record import Record
from metalr.compare.runner import finished, run
from tests.benchmarks.in_process import InProcess
from tests.conftest import random_policy

ROOT = Path(__file__).parents[2]
SHIPPED = {name: name for name in ("default", "anytime", "boosting", "boosting_anytime")}


def tiny(out: Path, **sources: str):
    return suite.suite_runs(["digits"], 2, 1, 0.03, SHIPPED | sources, None, out)


def reported(runs, executor, out: Path):
    return suite.run_and_report(runs, executor, ORDER, "the command", out, out / "docs")


def test_a_tiny_suite_goes_on_where_it_was_and_repeats_only_what_a_new_policy_changes(tmp_path: Path):
    runs = tiny(tmp_path)
    assert len(runs) == 2 * 2 * 2 * 8 + 2 * len(RIVALS)
    first, second = InProcess(stop_after=10), InProcess()
    with pytest.raises(SystemExit) as stopped:
        reported(runs, first, tmp_path)
    assert stopped.value.code == 130
    assert first.done == runs[:10]
    findings = reported(runs, second, tmp_path)
    assert second.done == runs[10:]
    assert (findings.done, findings.planned) == (len(runs), len(runs))

    # The page, and compare's report of each cell, in which a rival stands beside both optimizers' schedules.
    docs = tmp_path / "docs"
    page = (docs / "heldout.md").read_text()
    assert "the command" in page
    assert "| digits | adamw | 15 |" in page
    assert page.count("| cosine | 1.000 |") == 1  # over itself
    for name in ("default_median_over_best_cosine", "anytime_worst_over_best_constant"):
        assert f"\n{name}: {findings.figures[name]:.3f} [" in page
    assert (docs / "heldout.png").stat().st_size > 10_000
    cells = (tmp_path / "report.md").read_text()
    assert "| digits-adamw-15 | default, untuned (1 run) | prodigy_cosine, untuned (1 run) |" in cells

    # Everything on the page can be worked out from the file of runs again; nothing is run for that.
    again = rewrite_docs(docs / "heldout.csv", "the command", tmp_path / "again")
    one, other = (json.loads((folder / "heldout.json").read_text()) for folder in (docs, tmp_path / "again"))
    assert one.pop("core_minutes") == pytest.approx(other.pop("core_minutes"), rel=0.01)
    same(one, other)
    assert (tmp_path / "again" / "heldout.csv").read_text() == (docs / "heldout.csv").read_text()
    assert figure_lines(again)[:-1] == figure_lines(findings)[:-1]

    random_policy(3).save(tmp_path / "new.safetensors")
    third = InProcess()
    reported(tiny(tmp_path, default=str(tmp_path / "new.safetensors")), third, tmp_path)
    assert len(third.done) == 2 * 2 * 2
    assert {each.schedule for each in third.done} == {"default"}
    fourth = InProcess()
    reported(runs, fourth, tmp_path)  # the policy of before: its runs are still there
    assert fourth.done == []


def same(one, other):
    """Numbers to what the six digits of the file allow, all else exactly."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == (pytest.approx(other, rel=1e-3) if isinstance(one, float) else other)


def test_a_run_that_fails_is_named_and_the_others_are_reported(tmp_path: Path):
    runs = tiny(tmp_path)

    class Failing(InProcess):
        def ended(self):
            return [(each, each.schedule != "step") for each, _ in super().ended()]

    with pytest.raises(SystemExit, match=r"8 runs failed, the first digits-sgd-3/step"):
        reported(runs, Failing(), tmp_path)
    assert "runs_done: 64 of 72" in (tmp_path / "docs" / "heldout.md").read_text()


def test_two_workers_give_what_this_process_does(tmp_path: Path):
    from benchmarks.suites.runs import flush_denormals
    from metalr.compare.pool import PoolExecutor

    ours, theirs = ([each for each in tiny(tmp_path / name) if each.schedule == "cosine"] for name in "ab")
    for name in "ab":
        (tmp_path / name).mkdir()
    run(ours, finished(ours), InProcess(), Console(quiet=True))
    outcome = run(theirs, finished(theirs), PoolExecutor(2, flush_denormals), Console(quiet=True))
    assert len(outcome.records) == len(theirs) == 8
    for one, other in zip(ours, theirs, strict=True):
        assert Record.load(one.folder).curves["val/loss"] == Record.load(other.folder).curves["val/loss"]


def test_bad_arguments_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="only=digits,nope: unknown nope; choose of digits"):
        suite.main(out=tmp_path, only="digits,nope")
    with pytest.raises(ValueError, match="schedules=nope"):
        suite.main(out=tmp_path, schedules="nope")
    with pytest.raises(ValueError, match="rates=1"):
        suite.main(out=tmp_path, rates=1)


def test_the_page_in_docs_is_what_its_stored_figures_say(tmp_path: Path):
    """By the command of the page, from heldout.json."""
    suite.main(docs=tmp_path, source=ROOT / "docs" / "heldout.json")
    assert (tmp_path / "heldout.md").read_text() == (ROOT / "docs" / "heldout.md").read_text()


def stored_cells():
    """Rows of the cells out of docs/heldout.csv, which has means over seeds."""
    cells, rivals = defaultdict(dict), defaultdict(dict)
    with (ROOT / "docs" / "heldout.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            place, loss = (row["task"], row["steps"]), row["loss_12"]
            if row["optimizer"] == "own":
                rivals[place][row["schedule"]] = float(loss)
                continue
            cell = cells[(*place, row["optimizer"])]
            if loss:
                cell[f"{row['schedule']} {row['rate']}"] = float(loss)
            if row["metric"]:
                cell[{"default": "metric learned", "tuned": "metric best tuned"}[row["schedule"]]] = float(
                    row["metric"]
                )
    return [cell | rivals[place[:2]] for place, cell in cells.items()]


def test_what_docs_heldout_csv_has_gives_the_figures_that_were_printed():
    """To their three digits, from losses of four: all that can be worked out of means."""
    stored, cells = Findings.load(ROOT / "docs" / "heldout.json"), stored_cells()
    assert len(cells) == 20
    ratios = ratios_of(cells)
    found = {name: geometric_mean(each) for name, each in ratios.items()}
    found |= metric_figures(cells, "default") | win_figures(cells, "default") | win_figures(cells, "anytime")
    assert len(found) == 4 + 2 + 2 * len(RIVALS)
    for name, value in found.items():
        assert value == pytest.approx(stored.figures[name], abs=0.012 if "points" in name else 6e-4), name
    assert intervals(ratios).keys() == stored.intervals.keys()
    for name, ends in intervals(ratios).items():
        assert ends == pytest.approx(stored.intervals[name], abs=1e-9)
    over_cosine = {"default": (1, "default median"), "anytime": (1, "anytime median"), "constant": (0, "constant best")}
    over_cosine |= {name: (1, name) for name in RIVALS}
    for name, (place, column) in over_cosine.items():
        each = [math.log(cell[column] / cell["cosine best"]) for cell in cells if column in cell]
        assert math.exp(fmean(each)) == pytest.approx(stored.summary[name][place], abs=6e-4), name


def test_a_file_of_means_is_no_file_of_runs(tmp_path: Path):
    with pytest.raises(ValueError, match="line 2: not a run of the suite .*--source"):
        rewrite_docs(ROOT / "docs" / "heldout.csv", "", tmp_path)
