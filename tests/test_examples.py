"""The examples run as their page says, with short settings."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from metalr import LRPolicy
from metalr.cli import MetaLRCLI

OWN = Path(__file__).parents[1] / "examples" / "own_policy"


@pytest.fixture
def in_the_example(monkeypatch, tmp_path):
    """As a script in its folder is run."""
    monkeypatch.syspath_prepend(str(OWN))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("own_tasks", "use"):
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_shipped_policy_is_fine_tuned_on_own_tasks_and_used(in_the_example):
    short = [
        "--trainer.max_steps=2",
        "--trainer.val_check_interval=2",
        "--trainer.enable_progress_bar=false",
        "--model.init_args.estimator.init_args.pairs=2",
        "--model.init_args.support_batches=1",
        "--data.init_args.components.waves.horizons=[6,6]",
    ]
    MetaLRCLI(args=["fit", "--config", str(OWN / "own_policy.yaml"), *short])
    written = in_the_example / "logs" / "own_policy" / "best.safetensors"
    own, shipped = LRPolicy.load(written), LRPolicy.load("default")
    assert own.features == shipped.features
    assert not torch.equal(own.layers[0].weight, shipped.layers[0].weight)
    assert int(own.card["meta_steps"]) == int(shipped.card["meta_steps"]) + 2
    use = importlib.import_module("use")
    torch.manual_seed(0)
    assert 0.0 < use.validation_loss(str(written), seed=0, steps=30) < 1.39  # log(4) is what chance gives
