"""The report of a recorded set of cells: whole, self-contained, and right."""

import io
import math
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from metalr.compare import Grid, Workload
from metalr.compare.analysis import Finding, analyse
from metalr.compare.command import compare
from metalr.compare.fit import FitRun, Script
from metalr.compare.grid import Schedule
from metalr.compare.options import Options
from metalr.compare.record import Record, averaged, decimate, fingerprint
from metalr.compare.report import write_report
from metalr.compare.report.svg import overview
from metalr.compare.report.verdicts import Worded, in_short, short, verdicts
from metalr.compare.runner import Outcome, clear_changed, finished, run
from metalr.core.policy import LRPolicy

ROOT = Path(__file__).parents[2]
RATES, SEEDS = [0.01, 0.1, 1.0], [0, 1, 2]
FINAL = {"metalr": [1.0, 1.1, 1.2], "cosine": [2.0, 0.9, math.nan]}
"""Loss at each rate; a seed adds a hundredth."""


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def grid():
    workload = Workload("lines", ["configs/digits.yaml"], test=True)
    return Grid("g", [workload], [Schedule.named("metalr"), Schedule.named("cosine")], RATES, SEEDS)


def recorded(cell):
    final = FINAL[cell.schedule.name][RATES.index(cell.rate)] + 0.01 * cell.seed
    at = list(range(10, 101, 10))
    losses = [final + (100 - step) / 100 for step in at]
    curves = {"val/loss": (at, losses), "train/loss": (at, losses), "lr": (at, [cell.rate] * 10)}
    return Record(
        fingerprint=fingerprint(cell),
        workload=cell.workload.name,
        schedule=cell.schedule.name,
        rate=cell.rate,
        seed=cell.seed,
        steps=100,
        epoch_steps=10,
        seconds=50.0,
        first_loss=3.0,
        final={"val/loss": final, "val/accuracy": 0.5},
        test={"test/loss": final},
        curves=curves | {"seconds": (at, [step / 2 for step in at])},
        made_with={"torch": "x"},
    )


@pytest.fixture
def cell_runs(grid, tmp_path):
    return [FitRun(cell, tmp_path, Script("train.py")) for cell in grid.cells()]


def test_the_figures_of_a_grid_by_hand(grid):
    (result,) = analyse(grid, map(recorded, grid.cells())).results
    own, other = result.standings
    assert (own.rate, other.rate) == (0.01, 0.1)
    assert own.tuned.mean == pytest.approx(1.01)
    assert own.median.mean == pytest.approx(1.11)
    assert own.worst.mean == pytest.approx(1.21)
    assert other.worst.mean == math.inf
    assert result.baseline is other
    assert result.threshold == pytest.approx(0.91)
    assert result.initial_loss == 3.0
    assert own.sensitivity.mean == pytest.approx((0.0 + 0.1 + 0.2) / 3)
    assert other.sensitivity.mean == pytest.approx(((2.0 - 0.9) + 0.0 + (3.0 - 0.91)) / 3, abs=0.01)
    assert (own.cost_runs, own.cost_steps, own.cost_seconds) == (3, 300, 150)
    assert result.same_start


def test_speed_is_censored(grid):
    (result,) = analyse(grid, map(recorded, grid.cells())).results
    own, other = (standing.tuned_speed for standing in result.standings)
    assert (own.reached, own.runs, own.steps) == (0, 3, math.inf)
    assert (other.reached, other.steps, other.epochs, other.seconds) == (2, 100, 10, 50)  # 0.90 and 0.91 of 0.91
    assert other.each == (100, 100, math.inf)


def test_claims_have_intervals_or_are_none(grid):
    analysis = analyse(grid, map(recorded, grid.cells()))
    untuned, tuned, same = analysis.claims
    assert untuned.paired.difference == pytest.approx(0.2)
    assert tuned.paired.difference == pytest.approx(0.1)
    assert untuned.finding is tuned.finding is Finding.WORSE
    assert same.paired.difference == pytest.approx(1.11 - 2.01)
    assert same.finding is Finding.BETTER
    one_seed = analyse(grid, [recorded(cell) for cell in grid.cells() if cell.seed == 0])
    assert {claim.finding for claim in one_seed.claims} == {Finding.TOO_FEW_SEEDS}


def test_verdicts_say_who_won_with_the_figures(grid):
    analysis = analyse(grid, map(recorded, grid.cells()))
    (verdict,) = verdicts(analysis)
    assert verdict.finding is Finding.WORSE
    assert [(line.standing.schedule, line.tuned) for line in verdict.lines] == [
        ("metalr", False),
        ("cosine", True),
        ("cosine", False),
        ("metalr", True),
    ]
    assert [line.value for line in verdict.lines] == pytest.approx([1.11, 0.91, 2.01, 1.01])
    findings = [line.claim and line.claim.finding for line in verdict.lines]
    assert findings == [None, Finding.WORSE, Finding.BETTER, Finding.WORSE]


def test_verdicts_are_put_into_words(grid):
    analysis = analyse(grid, map(recorded, grid.cells()))
    (worded,) = map(Worded, verdicts(analysis))
    assert (worded.kind, worded.workload) == ("worse", "lines, val/loss ↓")
    assert worded.lead == "metalr, untuned, is worse than the best-tuned baseline"
    lines = list(worded.lines())
    assert [(who, value) for who, value, _ in lines] == [
        ("metalr, one run, the median of 3 initial rates", "1.11"),
        ("cosine at 0.1, the best of 3 runs", "0.91"),
        ("cosine, one run, the median of 3 initial rates", "2.01"),
        ("metalr at 0.01, the best of 3 runs", "1.01"),
    ]
    said = [said.partition(",")[0] for *_, said in lines]
    assert said == ["", "worse", "better", "against cosine at 0.1: worse"]
    assert in_short(short(analysis)) == (
        "One untuned run of metalr against the best-tuned baseline: worse on 1 of 1 workload. "
        "From the same initial rate it wins 67% of the runs."
    )


def test_before_there_is_anything_to_compare(grid):
    analysis = analyse(grid, [recorded(cell) for cell in grid.cells() if cell.schedule.name == "cosine"])
    (verdict,) = verdicts(analysis)
    assert verdict.finding is Finding.NOTHING_TO_COMPARE
    assert [line.value for line in verdict.lines] == pytest.approx([0.91])
    assert Worded(verdict).kind == "none"
    assert "no claim on 1 of 1 workload." in in_short(short(analysis))


def test_the_overview_has_every_workload_and_colours_of_its_own(grid):
    from dataclasses import replace

    second = replace(grid.workloads[0], name="single", rates=[0.1])
    both = replace(grid, workloads=[*grid.workloads, second])
    svg = overview(analyse(both, map(recorded, both.cells())), "both")
    for said in ("lines", "single", "prefers-color-scheme: dark", "--ink: #e8eaed", "initial learning rate"):
        assert said in svg
    assert "optimizer step" in svg  # of the one that has a single rate
    assert svg.count("<svg") == 1


def test_wins_are_counted_at_tuned_and_at_the_same_rates(grid):
    analysis = analyse(grid, map(recorded, grid.cells()))
    assert analysis.tuned_wins[0, 1] == 0.0
    assert analysis.same_rate_wins[0, 1] == pytest.approx(2 / 3)
    assert analysis.same_rate_wins[1, 0] == pytest.approx(1 / 3)
    assert math.isnan(analysis.tuned_wins[0, 0])


def test_runs_that_start_apart_are_reported(grid):
    from dataclasses import replace

    records = [recorded(cell) for cell in grid.cells()]
    logged = [replace(r, curves=r.curves | {"lr": ([1, *r.curves["lr"][0]], [1.0] * 11)}) for r in records]
    assert analyse(grid, logged).results[0].same_start
    logged[0] = replace(logged[0], first_loss=3.1)
    assert not analyse(grid, logged).results[0].same_start


class Page(HTMLParser):
    """What a page has, and whether its elements close."""

    VOID = ("meta", "br", "use", "path", "rect")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.cells = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [value for key, value in attributes if key in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_page_stands_alone_and_says_it_all(grid, cell_runs, tmp_path):
    failed = cell_runs.pop()
    outcome = Outcome(
        {cell_run.name: recorded(cell_run.cell) for cell_run in cell_runs}, {failed.cell.name: "<b>boom</b> & more"}
    )
    page = write_report(grid, [*cell_runs, failed], outcome, tmp_path)
    text = page.read_text()
    parsed = Page(text)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert parsed.links
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert not re.findall(r"url\((?!#)|@import|<script", text)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(parsed.ids)
    assert "&lt;b&gt;boom&lt;/b&gt; &amp; more" in text
    assert "17 of 18 cells are finished, 1 failed" in text
    assert {"1.01", "1.11", "1.21", "diverged"} <= set(parsed.cells)
    assert "metalr, untuned, is worse than the best-tuned baseline" in text
    assert text.count("<svg") == 4 + 2
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    for cell_run in cell_runs:
        assert f"--trainer.logger.save_dir={cell_run.folder}" in text
    markdown = (tmp_path / "report.md").read_text()
    for said in ("best rate | 1.01 | **0.91** |", "python train.py fit --config=configs/digits.yaml", "boom"):
        assert said in markdown
    for plot in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (tmp_path / plot).read_text().startswith("<svg")


def test_the_numbers_are_there_as_csv_and_parquet(grid, cell_runs, tmp_path):
    outcome = Outcome({cell_run.name: recorded(cell_run.cell) for cell_run in cell_runs[1:]})
    write_report(grid, cell_runs, outcome, tmp_path)
    for name, rows in (("cells", 18), ("curves", 17 * 4 * 10), ("summary", 2 * 7)):
        stored = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert len(stored) == rows
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / f"{name}.csv"), stored, check_dtype=False)
    cells = pd.read_parquet(tmp_path / "cells.parquet")
    assert list(cells["status"]) == ["not run"] + ["finished"] * 17
    assert cells.loc[1, "test/loss"] == pytest.approx(1.1)


def test_a_report_needs_a_cell(grid):
    with pytest.raises(ValueError, match="one finished cell or more"):
        analyse(grid, [])


def test_records_come_back_and_damage_is_named(cell_runs):
    record = recorded(cell_runs[0].cell)
    record.save(cell_runs[0].folder)
    assert Record.load(cell_runs[0].folder) == record
    assert finished(cell_runs).records.keys() == {cell_runs[0].cell.name}
    (cell_runs[0].folder / "record.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged .*delete it, and the cell runs again"):
        finished(cell_runs)


def test_a_run_of_another_grid_is_refused(grid, cell_runs):
    from dataclasses import replace

    other = replace(cell_runs[0].cell, workload=replace(grid.workloads[0], overrides={"trainer.max_epochs": 1}))
    replace(recorded(cell_runs[0].cell), fingerprint=fingerprint(other)).save(cell_runs[0].folder)
    with pytest.raises(ValueError, match="is a run of another grid .*(.|\n)* --redo_changed true"):
        finished(cell_runs)
    recorded(cell_runs[1].cell).save(cell_runs[1].folder)
    clear_changed(cell_runs, quiet())
    assert finished(cell_runs).records.keys() == {cell_runs[1].cell.name}
    assert not cell_runs[0].folder.exists()


def test_another_policy_makes_another_run_of_the_learned_schedule_alone(grid, tmp_path, monkeypatch):
    def marks():
        return {cell.schedule.name: fingerprint(cell) for cell in grid.cells()}

    path = tmp_path / "policy.safetensors"
    monkeypatch.setattr("metalr.compare.record.shipped_policies", lambda: {"default": path})
    policy = LRPolicy.load("default")
    policy.save(path)
    before = marks()
    policy.card["note"] = "the same rates"
    policy.save(path)
    assert marks() == before
    LRPolicy(policy.features, policy.hidden, seed=1).save(path)
    assert marks()["cosine"] == before["cosine"]
    assert marks()["metalr"] != before["metalr"]


class Recorder:
    """An executor whose cells are finished at once."""

    free = 4

    def __init__(self):
        self.launched, self.done = [], []

    def launch(self, cell_runs):
        self.launched += cell_runs
        self.done += cell_runs
        for cell_run in cell_runs:
            recorded(cell_run.cell).save(cell_run.folder)

    def ended(self):
        done, self.done = self.done, []
        return [(cell_run, True) for cell_run in done]

    def stop(self):
        assert not self.done


def test_some_schedules_alone_are_run_and_all_that_is_finished_is_reported(cell_runs):
    first, second = Recorder(), Recorder()
    assert len(run(cell_runs, finished(cell_runs), first, quiet(), only=["cosine"]).records) == 9
    assert {cell_run.schedule for cell_run in first.launched} == {"cosine"}
    outcome = run(cell_runs, finished(cell_runs), second, quiet())
    assert {cell_run.schedule for cell_run in second.launched} == {"metalr"}
    assert list(outcome.records) == [cell_run.name for cell_run in cell_runs]


def quiet():
    return Console(file=io.StringIO())


def test_long_curves_are_decimated():
    steps = list(range(1, 1001))
    curve = (steps, [float(step) for step in steps])
    picked, (at, means) = decimate(curve, 10), averaged(curve, 10)
    assert len(picked[0]) == len(at) == 10
    assert (picked[0][0], picked[0][-1], at[-1]) == (1, 1000, 1000)
    assert means[0] == pytest.approx(50.5)
    assert decimate(curve, 1000) == averaged(curve, 1000) == curve


def test_hostile_names_are_shown_and_do_nothing(grid, cell_runs, tmp_path):
    from dataclasses import replace

    name = "</h1><script>alert(1)</script> `x` | $y_"
    workload = replace(grid.workloads[0], overrides={"data.path": '$METALR_DATA"; touch x; echo "'})
    hostile = replace(grid, name=name, workloads=[workload])
    runs = [FitRun(cell, tmp_path, Script("train.py")) for cell in hostile.cells()]
    log = "```\n# not a heading"
    outcome = Outcome({each.name: recorded(each.cell) for each in runs[1:]}, {runs[0].name: log})
    page = write_report(hostile, runs, outcome, tmp_path).read_text()
    Page(page)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    text = (tmp_path / "report.md").read_text()
    assert text.startswith(r"# \</h1\>\<script\>alert(1)\</script\> \`x\` \| $y\_" + "\n")
    assert f"````\n{log}\n````" in text
    command = next(line for line in text.splitlines() if line.startswith("python train.py fit"))
    assert shlex.split(command) == runs[0].command()
    assert """'"; touch x; echo "'""" in command


def test_a_metric_with_dollars_is_no_mathematics(grid):
    from dataclasses import replace

    odd = replace(grid, workloads=[replace(grid.workloads[0], metric="val/$x^$")])
    records = [recorded(cell) for cell in grid.cells()]
    renamed = [
        replace(
            r, final=r.final | {"val/$x^$": r.final["val/loss"]}, curves=r.curves | {"val/$x^$": r.curves["val/loss"]}
        )
        for r in records
    ]
    assert "val/$x^$" in overview(analyse(odd, renamed), "odd")


def test_a_resumed_grid_reads_and_digests_each_cell_once(cell_runs, monkeypatch):
    """Not once for each of the others: the work of resuming is linear in the number of cells."""
    for cell_run in cell_runs[:-1]:
        recorded(cell_run.cell).save(cell_run.folder)
    reads, digests = [], []
    load = Record.load
    monkeypatch.setattr(Record, "load", lambda folder: reads.append(folder) or load(folder))
    monkeypatch.setattr(FitRun, "fingerprint", lambda self: digests.append(self.name) or fingerprint(self.cell))
    grid = Grid("g", [cell_runs[0].cell.workload], ["metalr", "cosine"], RATES, SEEDS)
    out = cell_runs[0].out
    (out / "grid.yaml").write_text("name: g\n")
    parsed = []
    compare(grid, Options(str(out), script="train.py"), parsed.append, Recorder(), quiet())
    assert len(parsed) == 1
    assert sorted(reads) == sorted(
        [*(each.folder for each in cell_runs[:-1]), cell_runs[-1].folder, cell_runs[-1].folder]
    )
    assert sorted(digests) == sorted(each.name for each in cell_runs)
