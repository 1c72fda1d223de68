"""Real cells, run by the real executor: interrupted, failed and resumed, they end as if nothing had happened."""

import io
import os
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from metalr.compare import Grid, Workload
from metalr.compare.command import compare
from metalr.compare.executor import LocalExecutor
from metalr.compare.fit import FitRun, Script
from metalr.compare.options import Options
from tests.compare.problem import CONFIG, HALVED, LEARNED, ROOT, SCRIPT


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """A user's own script, module and data; schedules by class_path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    Path("own.py").write_text(SCRIPT)
    Path("line.yaml").write_text(yaml.safe_dump(CONFIG))
    workload = Workload("line", ["line.yaml"], test=True)
    return Grid("g", [workload], [LEARNED, HALVED], rates=[0.01, 0.1], seeds=[0], candidate="learned")


def run(grid, out, executor=None, **options):
    console = Console(file=io.StringIO(), width=200)
    options = Options(out=out, script="own.py", **options)
    try:
        compare(grid, options, executor=executor or LocalExecutor(workers=2 if cores() > 1 else 1), console=console)
    finally:
        run.said = console.file.getvalue()
    return figures(out)


def cores():
    return len(os.sched_getaffinity(0))


def figures(out):
    """What a report says, but for the time that it took."""
    frame = pd.read_parquet(Path(out) / "cells.parquet").drop(columns="seconds")
    curves = pd.read_parquet(Path(out) / "curves.parquet")
    return frame, curves[curves["curve"] != "seconds"].reset_index(drop=True)


def same(one, other):
    for first, second in zip(one, other, strict=True):
        pd.testing.assert_frame_equal(first, second, check_exact=True)


class Interrupted(LocalExecutor):
    """Ctrl-C as soon as the first cell has ended."""

    def ended(self):
        done = super().ended()
        if done:
            self.left = len(self._running)
            raise KeyboardInterrupt
        return done


@pytest.mark.slow
def test_interrupted_failed_and_resumed_it_ends_as_if_it_had_run_through(grid, tmp_path):
    through = run(grid, "through")
    cells, curves = through
    assert list(cells["status"]) == ["finished"] * 4
    assert set(cells["steps"]) == {12}
    assert cells["first_loss"].nunique() == 1  # the same initialisation and batch for every schedule and rate
    halved = curves[(curves["schedule"] == "halved") & (curves["rate"] == 0.1) & (curves["curve"] == "lr")]
    assert list(halved["value"].round(6)) == [0.1] * 6 + [0.01] * 6
    assert not list(Path("through").rglob("*.ckpt"))
    assert "python own.py fit --config=line.yaml" in Path("through/report.md").read_text()

    # One worker's numbers are two workers'; Ctrl-C after the first cell; then the rest.
    with pytest.raises(SystemExit) as stopped:
        run(grid, "again", Interrupted(workers=1))
    assert stopped.value.code == 130
    assert "stopped with 1 of 4 cells finished; the same command goes on" in run.said
    kept = {path: path.stat().st_mtime_ns for path in Path("again").rglob("record.json")}
    assert len(kept) == 1
    same(run(grid, "again", workers=1), through)
    assert "1 of them finished before" in run.said
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())

    # A cell that dies: the others end, it is reported; the next time it goes on from its checkpoint.
    flag = tmp_path / "die"
    flag.touch()
    cell = Path("dying/line/halved/rate=0.1/seed=0")
    dying = Grid(
        "g",
        [Workload("line", ["line.yaml"], {"model.die_flag": str(flag), "model.die_at": 6}, test=True)],
        [HALVED],
        rates=[0.1],
        seeds=[0],
        candidate="halved",
    )
    with pytest.raises(RuntimeError, match="no cell .* is finished(.|\n)*asked to die"):
        run(dying, "dying")
    assert (cell / "resume.ckpt").is_file()
    resumed = run(dying, "dying", keep_checkpoints=True)
    assert "--ckpt_path=dying/line/halved/rate=0.1/seed=0/resume.ckpt" in (cell / "log.txt").read_text()
    here = (cells["schedule"] == "halved") & (cells["rate"] == 0.1)
    there = (curves["schedule"] == "halved") & (curves["rate"] == 0.1)
    same(resumed, (cells[here].reset_index(drop=True), curves[there].reset_index(drop=True)))

    # A cell that was stopped between the end of its training and its record.
    (cell / "record.json").unlink()
    same(run(dying, "dying"), resumed)


def test_folders_of_something_else_are_refused(grid, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"has thesis.tex and no grid: give an empty folder"):
        run(grid, "full")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "grid.yaml").write_text("name: other\n")
    with pytest.raises(ValueError, match="is the folder of the grid 'other', not of 'g'"):
        run(grid, "other")


def test_a_full_disk_is_refused_before_the_first_cell(grid, monkeypatch):
    monkeypatch.setattr("metalr.compare.runner.FREE", 2**62)
    with pytest.raises(OSError, match="MB are free: make room"):
        run(grid, "out")
    assert not list(Path("out").rglob("log.txt"))


def test_a_folder_has_one_grid_at_a_time(grid):
    from metalr.compare.files import locked

    with locked(Path("out")), pytest.raises(RuntimeError, match="another process is at work here"):
        run(grid, "out")


def test_a_command_that_does_not_parse_is_refused_before_the_first_cell(grid):
    def parse(arguments):
        raise ValueError("no such option")

    with pytest.raises(ValueError, match="workload 'line' with schedule 'learned': .*no such option"):
        compare(grid, Options("out", script="own.py"), parse, LocalExecutor(workers=1))
    assert not list(Path("out").rglob("log.txt"))


def test_schedules_that_the_grid_has_not_are_refused(grid):
    with pytest.raises(ValueError, match=r"only=\['cosin'\]: choose of the grid's schedules, learned, halved"):
        run(grid, "out", only=["cosin"])


def test_cores_and_devices_are_shared_out():
    several = LocalExecutor(workers=2, threads=1, devices=["4", "5", "6", "7"]) if cores() > 1 else None
    assert several is None or several._slots == ["4,5", "6,7"]
    assert LocalExecutor(devices=["3"]).workers == 1
    assert LocalExecutor(devices=[]).workers * LocalExecutor(devices=[]).threads <= cores()
    with pytest.raises(ValueError, match="is more than the .* cores here"):
        LocalExecutor(workers=cores(), threads=2)
    with pytest.raises(ValueError, match="is more than the 1 devices here"):
        LocalExecutor(workers=2, threads=1, devices=["0"]) if cores() > 1 else LocalExecutor(2, 1, ["0"])
    with pytest.raises(ValueError, match="give 1 or more"):
        LocalExecutor(workers=0)


def test_a_cell_is_resumed_where_there_is_a_checkpoint(grid, tmp_path):
    cell_run = FitRun(grid.cells()[0], tmp_path, Script("own.py"))
    fit, test = cell_run.arguments()
    assert not any(argument.startswith("--ckpt_path") for argument in fit)
    assert test[0] == "test"
    cell_run.folder.mkdir(parents=True)
    (cell_run.folder / "resume.ckpt").touch()
    assert cell_run.arguments()[0][-1] == f"--ckpt_path={cell_run.folder / 'resume.ckpt'}"
