"""The grid's arithmetic, its commands, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest

from metalr.cli import MetaLRCLI
from metalr.compare import Grid, Schedule, Workload
from metalr.compare.shell import expand, yaml_value

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "compare"
YAMLS = sorted(path.relative_to(ROOT) for path in [*FOLDER.glob("*.yaml"), *FOLDER.glob("reduced/*.yaml")])
DEMO = [f"configs/compare/demo/{name}.yaml" for name in ("digits", "adult")]
DIGITS = Workload("digits", ["configs/digits.yaml"])


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def grid(**changes):
    given = {"name": "g", "workloads": [DIGITS], "schedules": ["metalr", "cosine"], "rates": [0.1, 1.0]}
    return Grid(**{**given, **changes})


def test_the_cells_are_the_product():
    other = Workload("other", ["configs/digits.yaml"], rates=[0.5])
    adam = Schedule("adam", {"optimizer": {"class_path": "torch.optim.Adam"}}, rates=[0.01, 0.001, 0.0001])
    cells = grid(workloads=[DIGITS, other], schedules=["metalr", adam], seeds=[3, 4]).cells()
    assert len(cells) == 2 * ((2 + 3) + (1 + 3))
    assert len({cell.name for cell in cells}) == len(cells)
    assert [cell.seed for cell in cells] == [3] * 9 + [4] * 9
    assert {cell.rate for cell in cells if cell.workload is other and cell.schedule.name == "metalr"} == {0.5}


def test_a_cells_command_is_an_ordinary_fit():
    workload = replace(DIGITS, overrides={"trainer.max_epochs": 2, "data.path": None}, seed_keys=["data.seed"])
    cell = grid(workloads=[workload]).cells()[0]
    assert cell.name == "digits/metalr/rate=0.1/seed=0"
    fit = cell.fit(Path("out"))
    configs = ["--config=configs/digits.yaml", "--config=configs/schedule/metalr.yaml"]
    options = ["--trainer.max_epochs=2", "--data.path=null", "--optimizer.lr=0.1", "--data.seed=0"]
    assert fit[:8] == ["fit", *configs, *options, "--seed_everything=0"]
    assert "--trainer.logger.save_dir=out/digits/metalr/rate=0.1/seed=0" in fit
    tested = cell.test(Path("out"), Path("x.ckpt"))
    assert tested[:7] == ["test", *configs, *options]
    assert "--ckpt_path=x.ckpt" in tested


def test_the_rate_goes_where_the_schedule_says():
    one_cycle = {"lr_scheduler": {"class_path": "torch.optim.lr_scheduler.OneCycleLR"}}
    schedule = Schedule("one_cycle", one_cycle, rate_keys=["lr_scheduler.max_lr"])
    fit = grid(schedules=[schedule], candidate="one_cycle").cells()[1].fit(Path("out"))
    assert "--lr_scheduler.max_lr=1.0" in fit
    assert "--config=out/schedules/one_cycle.yaml" in fit
    assert not any(argument.startswith("--optimizer.lr=") for argument in fit)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workloads": []}, r"workloads=\[\]: the grid is empty"),
        ({"schedules": []}, r"schedules=\[\]"),
        ({"seeds": []}, r"seeds=\[\]"),
        ({"rates": []}, "give one initial rate or more"),
        ({"rates": [0.1, 0.0]}, "each above 0"),
        ({"rates": [float("nan")]}, "each above 0"),
        ({"seeds": [-1]}, "whole numbers from 0"),
        ({"candidate": "cosin"}, "candidate='cosin': choose one of the schedules, metalr, cosine"),
        ({"schedules": ["metalr", "metalr"]}, "metalr is there twice"),
        ({"workloads": [DIGITS, DIGITS]}, "digits is there twice"),
        ({"rates": [0.1, 0.1 + 1e-12]}, "rate=0.1/seed=0, .*is there twice, and would write to one folder"),
        ({"seeds": [1, 1]}, "would write to one folder"),
    ],
)
def test_bad_grids_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        grid(**changes)


def test_what_does_not_exist_is_named():
    with pytest.raises(FileNotFoundError, match="'cosin' is not in configs/schedule .*cosine"):
        grid(schedules=["metalr", "cosin"])
    with pytest.raises(FileNotFoundError, match=r"configs: 'configs/digit.yaml' does not exist"):
        grid(workloads=[replace(DIGITS, configs=["configs/digit.yaml"])])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../digits"}, "names a folder"),
        ({"configs": []}, "no configs"),
        ({"rates": [-1.0]}, "each above 0"),
        ({"rate_keys": []}, "name one option or more"),
        ({"threshold": float("nan")}, "give a finite value"),
    ],
)
def test_bad_workloads_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(DIGITS, **changes)


def test_values_as_arguments():
    assert [yaml_value(v) for v in (1e-05, 3, True, None, "a b")] == ["1e-05", "3", "true", "null", "a b"]
    assert yaml_value({"a": [1, 2]}) == "{a: [1, 2]}"


def test_the_environment_is_read_and_missed(monkeypatch):
    monkeypatch.setenv("FOLDER", "/data")
    assert expand(["--a=$FOLDER/x", "--b=1"]) == ["--a=/data/x", "--b=1"]
    monkeypatch.delenv("FOLDER")
    with pytest.raises(ValueError, match="FOLDER is not set: export FOLDER="):
        expand(["--a=${FOLDER}/x"])


class Parsed(Exception):
    """Stands in for the run."""


@pytest.mark.slow
@pytest.mark.parametrize("paths", [*([str(path)] for path in YAMLS), DEMO], ids=str)
def test_every_yaml_is_a_grid_whose_commands_parse(paths, monkeypatch):
    """Through the real CLI; the candidate's command of each kind of workload through that of `fit`."""
    import callbacks  # noqa: F401 - as train.py has them
    import datamodules  # noqa: F401
    import models  # noqa: F401

    monkeypatch.setenv("METALR_DATA", "/data")
    monkeypatch.setenv("ADULT", "/data/adult")

    def check(grid, options, parse):
        for workload in {tuple(w.configs): w for w in grid.workloads}.values():
            cell = next(cell for cell in grid.cells() if cell.workload is workload)
            parse(expand(cell.fit(Path("out")))[1:])
        assert len(grid.workloads) == (2 if paths == DEMO else len(grid.workloads))
        raise Parsed(grid.name)

    monkeypatch.setattr("metalr.compare.command.compare", check)
    with pytest.raises(Parsed) as found:
        MetaLRCLI(args=["compare", *(f"--config={path}" for path in paths)])
    folder, stem = Path(paths[0]).parent.name, Path(paths[0]).stem
    assert str(found.value) == {"reduced": f"{stem}_reduced", "demo": "demo"}.get(folder, stem)


def test_every_grid_has_a_reduced_version():
    full, reduced = ({p.name for p in YAMLS if (p.parent.name == "reduced") is kind} for kind in (False, True))
    assert full == reduced
    workloads = {p.name for p in (ROOT / "configs").glob("*.yaml") if "\nmodel:" in p.read_text()}
    workloads -= {"glue_minilm.yaml", "glue_minilm_lora.yaml"}  # benchmarks.finetuning compares these
    assert workloads | {"published.yaml"} == full
