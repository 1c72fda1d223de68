"""torchrun: after a worker dies all are restarted, and the run ends like one by Lightning's own launcher."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cluster.problem import fit_config, rates
from tests.compare.test_run import ROOT, SCRIPT

STEPS = 24
SAVED = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"dirpath": "saved", "every_n_train_steps": 5, "monitor": "step", "mode": "max"},
}


@pytest.mark.timeout(900)
def test_a_worker_that_dies_is_restarted(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else ranks connect to those that died: pytorch/pytorch#135712
    }

    def run(name: str, launcher: list[str], *options: str) -> Path:
        folder = tmp_path / name
        (folder / "saved").mkdir(parents=True)
        (folder / "own.py").write_text(SCRIPT)
        (folder / "fit.yaml").write_text(yaml.safe_dump(fit_config(STEPS, SAVED, devices=2)))
        command = [*launcher, "own.py", "fit", "--config=fit.yaml", "--trainer.default_root_dir=.", *options]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-4000:]
        return folder

    whole = run("whole", [sys.executable])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=3", "--standalone"]
    restarted = run("restarted", torchrun, "--model.die_on_rank=1", "--model.once=died", "--ckpt_path=saved")
    assert (restarted / "died").exists()
    assert list(rates(whole)) == list(range(1, STEPS + 1))
    assert rates(restarted) == rates(whole)
