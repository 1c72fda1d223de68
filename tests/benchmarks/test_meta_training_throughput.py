"""The benchmark of whole meta-trainings: its command is one, and its phases are those of the run."""

import json

import pytest

from benchmarks.meta_training_throughput import ROOT, observed
from metalr import LRPolicy
from metalr.cli import MetaLRCLI
from metalr.meta import HeldOutTask, Unroll

QUADRATIC = {"class_path": "metalr.meta.families.QuadraticTasks", "init_args": {"train_sizes": [32], "valid_size": 16}}


@pytest.mark.slow
def test_a_meta_training_is_observed_from_outside(tmp_path):
    functions = Unroll.advance, HeldOutTask.score
    components = {"m": {"family": QUADRATIC, "horizons": [6, 6]}}
    heldout = [{"name": "q", "family": QUADRATIC, "total_steps": 5, "instances": 2, "rates": 2}]
    arguments = [
        "fit",
        f"--config={ROOT}/configs/meta/base.yaml",
        f"--data.init_args.components={json.dumps(components)}",
    ]
    arguments += [f"--data.init_args.heldout={json.dumps(heldout)}"]
    arguments += ["--model.init_args.estimator.init_args.pairs=4", "--model.init_args.task_batches=2"]
    arguments += ["--model.init_args.support_batches=1", "--trainer.max_steps=2", "--trainer.val_check_interval=2"]
    MetaLRCLI(args=[*arguments, *observed(tmp_path)])
    assert LRPolicy.load(tmp_path / "policy.safetensors").card["inner_steps"] == str(2 * 2 * 2 * 4 * 6)
    seconds = json.loads((tmp_path / "phases.json").read_text())
    assert set(seconds) == {"compile", "loop", "evaluate", "gradient", "sample", "heldout", "support"}
    assert min(seconds.values()) >= 0
    assert sum(seconds.values()) > 0
    assert (Unroll.advance, HeldOutTask.score) == functions
