"""What is checked on the login node, and what would be submitted; no cluster is needed."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from metalr.cli import MetaLRCLI
from metalr.cluster.options import Cluster, Submission
from metalr.cluster.shape import Shape

ROOT = Path(__file__).parents[2]
SLURM = "--cluster=configs/cluster/slurm.yaml"
DIGITS = ("fit", "--config=configs/digits.yaml")


@pytest.fixture(autouse=True)
def at_home(monkeypatch):
    monkeypatch.chdir(ROOT)


def submit(*arguments: str) -> MetaLRCLI:
    return MetaLRCLI(args=["submit", *arguments])


def printed_note(capsys) -> dict:
    """Returns what a dry run printed."""
    return yaml.safe_load(capsys.readouterr().out)


def test_nodes_and_processes_are_the_trainers(capsys):
    submit(SLURM, "--dry_run=true", "--name=big", "--", *DIGITS, "--trainer.num_nodes=4", "--trainer.devices=8")
    note = printed_note(capsys)
    assert note["slurm"]["nodes"] == 4
    assert note["slurm"]["ntasks_per_node"] == 8
    assert note["slurm"]["gres"] == "gpu:8"
    assert note["slurm"]["job_name"] == "big"
    assert note["slurm"]["additional_parameters"] == {"signal": "USR1@120", "requeue": True}
    assert note["command"].endswith(f"--trainer.default_root_dir={ROOT / 'logs' / 'submit' / 'big'}")


def test_the_options_of_a_submission(tmp_path, capsys):
    settings = {
        "partition": "long",
        "account": "lab",
        "constraint": "h100",
        "gpu": "h100",
        "container": "image.sqsh",
        "mounts": ["/data:/data"],
        "setup": ["module load cuda"],
        "extra": {"nice": 5},
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(settings))
    submit(f"--cluster={path}", "--cluster.time=30", "--dry_run=true", "--", *DIGITS, "--trainer.devices=[0,1]")
    given = printed_note(capsys)["slurm"]
    assert given["time"] == 30
    assert given["gres"] == "gpu:h100:2"
    assert given["srun_args"] == ["--container-image=image.sqsh", "--container-mounts=/data:/data"]
    assert given["setup"] == ["module load cuda"]
    assert given["additional_parameters"]["nice"] == 5
    assert (given["partition"], given["account"], given["constraint"]) == ("long", "lab", "h100")


def test_a_run_on_cpus_asks_for_no_gpu(capsys):
    submit("--dry_run=true", "--", *DIGITS, "--trainer.accelerator=cpu", "--trainer.devices=2")
    assert "gres" not in printed_note(capsys)["slurm"]


def test_a_grid_is_an_array(capsys):
    submit(SLURM, "--cluster.parallel=5", "--dry_run=true", "--", "compare", "--config=configs/compare/digits.yaml")
    note = printed_note(capsys)
    assert note["cells"] > 10
    assert note["at once"] == note["slurm"]["array_parallelism"] == 5
    assert note["slurm"]["nodes"] == note["slurm"]["ntasks_per_node"] == 1


def test_the_pages_commands_would_be_submitted(capsys):
    page = (ROOT / "docs" / "cluster.md").read_text().replace("\\\n", "")
    commands = [shlex.split(line) for line in re.findall(r"^python train.py (submit .*)$", page, flags=re.M)]
    assert len(commands) == 3
    for _, *arguments in commands:
        submit("--dry_run=true", *arguments)
        assert printed_note(capsys)["slurm"]["time"] == 1440


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give the command after `--`, one of fit, validate, test, predict, compare"),
        (("--", "inspect", "default"), "give the command after `--`.*got inspect default"),
        (("--", *DIGITS, "--trainer.devces=8"), r"the command after `--` does not parse: .*devces"),
        (("--", *DIGITS, "--trainer.devices=auto"), r"trainer.devices='auto': a job needs their number"),
        (("--", "compare", "--config=configs/compare/digits.yaml", "--seeds=[]"), r"seeds=\[\]"),
    ],
)
def test_a_command_that_cannot_run_is_refused_before_submission(arguments, message):
    with pytest.raises(ValueError, match=message):
        submit(SLURM, "--dry_run=true", *arguments)


def test_a_folder_that_has_a_job_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "submitted.yaml").touch()
    with pytest.raises(ValueError, match="mine has a job already: give another --name"):
        submit(f"--folder={tmp_path}", "--name=mine", "--", *DIGITS, "--trainer.devices=1")


def test_without_slurm_it_says_where_to_submit_from(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="sbatch is not installed here: submit from a SLURM login node"):
        submit(f"--folder={tmp_path}", "--", *DIGITS, "--trainer.devices=1")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cluster(time=0), r"cluster.time=0: give 1 or more"),
        (lambda: Cluster(mounts=["/a:/a"]), r"cluster.mounts=\['/a:/a'\] without cluster.container"),
        (lambda: Submission(name="a/b"), "name='a/b': give letters"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_shape_counts_devices():
    class Trainer:
        num_nodes, accelerator = 2, "auto"

        def __init__(self, devices) -> None:
            self.devices = devices

    assert Shape.of(Trainer("3")) == Shape(2, 3, gpus=True)
    assert Shape.of(Trainer([0, 2])) == Shape(2, 2, gpus=True)
    assert Shape.of(Trainer("auto"), auto=1) == Shape(2, 1, gpus=True)
    with pytest.raises(ValueError, match="trainer.devices=-1"):
        Shape.of(Trainer(-1))
