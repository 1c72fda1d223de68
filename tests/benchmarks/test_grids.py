"""The pages about folders of grids, from recorded cells; every target is a grid with a threshold."""

from pathlib import Path

import pytest

from benchmarks import grids_page
from benchmarks.grids import main
from benchmarks.grids_page import read_grid, write_page
from metalr.compare.fit import FitRun, Script
from metalr.compare.record import Record, fingerprint

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def checkout(tmp_path, monkeypatch):
    """The configs, and no logs or docs but the test's."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)


def finish(path, later=()):
    """Records every cell of a grid; each schedule ends a hundredth below the one before it."""
    grid = read_grid(path)
    names = grid.schedule_names
    for cell in grid.cells():
        if cell.schedule.name in later:
            continue
        value = 0.95 - 0.01 * names.index(cell.schedule.name)
        workload, curve = cell.workload, ([50, 100], [0.5, value])
        curves = dict.fromkeys((workload.metric, workload.loss, workload.train_loss, "lr", "seconds"), curve)
        record = Record(
            fingerprint=fingerprint(cell),
            workload=workload.name,
            schedule=cell.schedule.name,
            rate=cell.rate,
            seed=cell.seed,
            steps=100,
            epoch_steps=10,
            seconds=12.0,
            first_loss=0.7,
            final={workload.loss: 0.25, workload.train_loss: 0.125} | {workload.metric: value},
            test={workload.metric.replace("val/", "test/"): value - 0.5},
            curves=curves,
            made_with={"torch": "x"},
        )
        record.save(FitRun(cell, Path("logs", "compare", grid.name), Script("train.py")).folder)


def test_every_target_is_a_grid_with_a_threshold_and_a_baseline():
    paths = sorted(Path("configs/compare/targets").glob("*.yaml"))
    assert len(paths) >= 7
    for path in paths:
        grid = read_grid(path)
        assert grid.name == f"target_{path.stem}"
        assert [workload.threshold is not None for workload in grid.workloads] == [True]
        first, *others = grid.schedule_names
        assert (first, len(others)) == ("metalr", 1)


def test_the_page_of_targets_says_what_was_reached():
    path = Path("configs/compare/targets/adult_xgboost.yaml")
    finish(path)
    text = write_page("targets", [path]).read_text()
    row = next(line for line in text.splitlines() if line.startswith("| adult_xgboost |"))
    run = "training loss 0.12, 100 steps, 12 s"
    assert row == f"| adult_xgboost | test/auc ≥ 0.925 | 0.45; {run} | constant: 0.44; {run} |"
    assert "**" not in row  # neither reached it
    fits, tests = (
        [line for line in text.splitlines() if line.startswith(f"python train.py {kind} --config=configs/adult_xg")]
        for kind in ("fit", "test")
    )
    assert len(fits) == len(tests) == 2  # the target is a metric of the test split, which no fit computes
    assert "--ckpt_path=logs/compare/target_adult_xgboost/adult_xgboost/metalr/rate=0.1/seed=0/resume.ckpt" in tests[0]
    assert "Made with torch x." in text
    assert Path("docs/targets/adult_xgboost.svg").read_text().startswith("<svg")


def test_the_page_of_reduced_grids_compares_as_far_as_cells_are_there():
    done, begun, new = (Path(f"configs/compare/reduced/{name}.yaml") for name in ("digits", "adult_mlp", "gpt2_lm"))
    finish(done)
    finish(begun, later=["metalr"])
    text = write_page("reduced", [done, begun, new]).read_text()
    assert "| digits: digits, val/loss ↓ | 0.95 | **0.93 (constant, 0.01)** | 0.95 | **0.93** |" in text
    assert "| adult_mlp: adult_mlp, val/loss ↓ | – | 0.92 (constant, 1e-05) | – | 0.92 |" in text
    assert text.rstrip().endswith("Not run yet.")
    assert "The reduced version of ../digits.yaml" in text
    assert (grids_page.DOCS / "reduced" / "digits.svg").is_file()


def test_an_unknown_grid_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"names=\['digit'\]: choose of adult_mlp, adult_xgboost"):
        main("reduced", names=["digit"], page_only=True)
