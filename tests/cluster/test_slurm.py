"""Jobs on a real SLURM of two nodes: a fit on both, one that is preempted and queued again, a grid as a job array."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from metalr.cli import MetaLRCLI
from metalr.cluster.executor import ClusterExecutor
from metalr.cluster.options import Cluster
from metalr.cluster.shape import Shape
from metalr.compare import Grid, Workload
from metalr.compare.command import compare
from metalr.compare.options import Options
from tests.cluster.problem import fit_config, rates, uninterrupted
from tests.cluster.slurm import WAIT, ask, needs_slurm, slurm, wait_for
from tests.compare.problem import CONFIG, HALVED, LEARNED, ROOT, SCRIPT

pytestmark = [pytest.mark.slow, needs_slurm, pytest.mark.timeout(4 * WAIT)]

STEPS = 24
HERE = ["export MASTER_ADDR=127.0.0.1", "export OMP_NUM_THREADS=1", f"export PYTHONPATH={ROOT}:$PYTHONPATH"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def here(cluster, tmp_path, monkeypatch):
    """A folder with a train script and its fit, where `sbatch` finds the cluster."""
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for name, value in (cluster | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    Path("own.py").write_text(SCRIPT)
    Path("fit.yaml").write_text(yaml.safe_dump(fit_config(STEPS, num_nodes=2, devices=1)))
    Path("cluster.yaml").write_text(yaml.safe_dump({"time": 30, "grace": 20, "setup": HERE}))


def submission(name, *options, follow):
    """The arguments of a fit that is submitted, as one types them on a login node."""
    command = ["submit", "--cluster=cluster.yaml", f"--name={name}", f"--follow={str(follow).lower()}"]
    return [*command, "--", "fit", "--config=fit.yaml", *options]


def test_a_preempted_job_goes_on_to_the_last_bit_on_two_nodes(here, cluster, tmp_path):
    command = [sys.executable, "own.py", *submission("preempted", "--model.seconds=0.5", follow=False)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT)
    assert done.returncode == 0, done.stderr
    folder = Path("logs/submit/preempted")
    job = yaml.safe_load((folder / "submitted.yaml").read_text())["job"]
    wait_for(lambda: len(rates(folder)) >= 5)
    ask(cluster, "scancel", "--signal=USR1", job)  # as SLURM does before it takes a job's nodes away
    wait_for(lambda: "PENDING" in ask(cluster, "squeue", "-h", "-j", job, "-o", "%T"))
    assert list(folder.glob("hpc_ckpt_*.ckpt"))
    assert 5 <= len(rates(folder)) < STEPS
    ask(cluster, "scontrol", "update", f"JobId={job}", "StartTime=now")  # it would wait two minutes
    wait_for(lambda: "JobState=COMPLETED" in ask(cluster, "scontrol", "show", "job", "-o", job))
    assert "MEMBER: 1/2" in "".join(path.read_text() for path in (folder / "jobs").glob("*_log.*"))
    assert list(rates(folder)) == list(range(1, STEPS + 1))
    assert rates(folder) == uninterrupted(tmp_path / "whole", fit_config(STEPS))


def test_a_rank_that_dies_ends_the_job_with_its_error(here, monkeypatch, capsys):
    monkeypatch.setattr("metalr.cluster.command.Script.running", classmethod(lambda script: script("own.py")))
    with pytest.raises(SystemExit, match="1"):
        MetaLRCLI(args=submission("dies", "--model.die_on_rank=1", follow=True))
    assert "FAILED" in capsys.readouterr().out
    logs = "".join(path.read_text() for path in Path("logs/submit/dies/jobs").glob("*_log.err"))
    assert "made to die" in logs


def test_a_grid_is_a_job_array_and_a_lost_cell_is_lost_alone(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster[name])
    Path("own.py").write_text(SCRIPT)
    Path("line.yaml").write_text(yaml.safe_dump(CONFIG))
    workload = Workload("line", ["line.yaml"])
    grid = Grid("g", [workload], [LEARNED, HALVED], rates=[0.01, 0.1], seeds=[0], candidate="learned")
    executor = ClusterExecutor(Cluster(time=30, setup=HERE, parallel=2), Shape(1, 1, False), Path("out/jobs"), "grid")
    lost = "line/halved/rate=0.1/seed=0"
    console = Console(file=io.StringIO(), width=200)

    def lose():
        wait_for(lambda: executor._running)
        (name,) = [name for name, cell_run in executor._running.items() if cell_run.name == lost]
        ask(cluster, "scancel", name)

    losing = threading.Thread(target=lose)
    losing.start()
    with pytest.raises(SystemExit):
        compare(grid, Options(out="out", script="own.py"), executor=executor, console=console)
    losing.join()
    assert sorted(path.parent.parent.name for path in Path("out").rglob("record.json")) == ["rate=0.01"] * 2 + [
        "rate=0.1"
    ]
    assert f"failed {lost}" in console.file.getvalue()
    assert Path("out/report.html").is_file()
