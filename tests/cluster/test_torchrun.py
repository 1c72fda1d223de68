"""torchrun: after a worker dies all are restarted, and the run ends like one that ran through."""

import os
import subprocess
import sys

import pytest
import yaml

from tests.cluster.problem import fit_config, rates, uninterrupted
from tests.compare.problem import ROOT, SCRIPT

STEPS = 24
SAVED = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"dirpath": "saved", "every_n_train_steps": 5, "monitor": "step", "mode": "max"},
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_worker_that_dies_is_restarted(tmp_path, monkeypatch):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else ranks connect to those that died: pytorch/pytorch#135712
    }

    config = fit_config(STEPS, SAVED, devices=2)
    folder = tmp_path / "restarted"
    (folder / "saved").mkdir(parents=True)
    (folder / "own.py").write_text(SCRIPT)
    (folder / "fit.yaml").write_text(yaml.safe_dump(config))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--max-restarts=3", "--standalone"]
    fit = ["own.py", "fit", "--config=fit.yaml", "--trainer.default_root_dir=.", "--ckpt_path=saved"]
    dying = ["--model.die_on_rank=1", "--model.once=died"]
    done = subprocess.run(
        [*torchrun, *fit, *dying], cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert (folder / "died").exists()
    monkeypatch.chdir(tmp_path)
    whole = uninterrupted(tmp_path / "whole", config)
    assert list(whole) == list(range(1, STEPS + 1))
    assert rates(folder) == whole
