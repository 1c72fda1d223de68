import pytest
import torch

from metalr import LRPolicy
from metalr.core.features import FEATURES
from metalr.meta.ship import ship
from tests.conftest import random_policy


def test_a_shipped_policy_has_its_card_inside_and_beside_it(tmp_path):
    policy = random_policy()
    policy.learn_support(torch.rand(1000, len(FEATURES)))
    policy.card = {"seed": "3", "meta_steps": "10", "inner_steps": "12345", "heldout": "0.1"}
    policy.save(tmp_path / "best.safetensors")
    (tmp_path / "figures.txt").write_text("python benchmarks/x.py\nratio: 0.9\n")
    path = ship(
        str(tmp_path / "best.safetensors"),
        "mine",
        command="python train.py fit --config mine.yaml",
        commit="0123abc",
        limits="On what it has not seen.",
        figures=[str(tmp_path / "figures.txt")],
        weights=tmp_path,
    )
    assert LRPolicy.load(path).card["ratio"] == "0.9"
    page = path.with_suffix(".md").read_text()
    for part in (
        "mine.yaml",
        "0123abc",
        "12,345",
        "python benchmarks/x.py",
        "| ratio | 0.9 |",
        "On what it has not seen.",
    ):
        assert part in page


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        ship(str(tmp_path / "nothing"), "mine", command="c", commit="0", limits="l", weights=tmp_path)


def test_a_policy_of_a_run_that_has_not_ended_is_refused(tmp_path):
    """Its support is learned after the last meta-step."""
    random_policy().save(tmp_path / "best.safetensors")
    with pytest.raises(ValueError, match="best.safetensors': its run has not ended"):
        ship(str(tmp_path / "best.safetensors"), "mine", command="c", commit="0", limits="l", weights=tmp_path)
    assert not (tmp_path / "mine.safetensors").exists()
