"""`train.py inspect` through the real CLI, on a policy, a run and a meta-training."""

from dataclasses import replace
from pathlib import Path

import pytest

from metalr import LRPolicy
from metalr.cli import MetaLRCLI
from metalr.inspection.folder import Inspected, save_history, save_run
from tests.inspection.runs import history, marked, recorded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def inspect(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*args) -> tuple[list[str], str]:
        cli = MetaLRCLI(args=["inspect", *map(str, args)])
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in cli.pictures)
        return [path.name for path in cli.pictures], capsys.readouterr().out

    return run


def test_a_shipped_policy(inspect, tmp_path):
    pictures, printed = inspect("default", "--out", tmp_path, "--theme", "dark")
    assert pictures == ["responses.png"]
    policy = LRPolicy.load("default")
    assert all(name in printed for name in policy.features)
    assert policy.fingerprint() in printed
    assert f"{policy.size:,} weights" in printed
    assert policy.card["seed"] in printed
    assert any(bar in printed for bar in "▁▂▃▅▆▇")


@pytest.mark.slow
def test_a_run_whose_last_version_was_inspected(inspect, policy, tmp_path):
    trace = marked(recorded(policy, 40)[1].trace)
    save_run(tmp_path / "version_9", [Inspected(policy, trace)])
    longer = marked(recorded(policy, 70)[1].trace)
    counts = longer.counts.copy()
    counts[-1, 1] = 7
    save_run(tmp_path / "version_10", [Inspected(policy, replace(longer, counts=counts))])
    (tmp_path / "version_11").mkdir()
    pictures, printed = inspect(tmp_path)
    assert pictures == ["decisions.png", "features.png", "responses.png"]
    assert (tmp_path / "version_10" / "inspection" / "optimizer-0" / "decisions.png").is_file()
    assert f"70 ({len(longer)} recorded)" in printed
    assert "limit 7 times" in printed
    assert "reached val/loss 0.2" in printed


@pytest.mark.slow
def test_a_meta_training(inspect, policy, tmp_path):
    policy.save(tmp_path / "best.safetensors")
    save_history(tmp_path, replace(history(policy, runs=False)))
    pictures, printed = inspect(tmp_path, "--out", tmp_path / "pictures")
    assert pictures == ["responses.png", "responses_over_time.png"]
    assert policy.fingerprint() in printed
    assert (tmp_path / "pictures" / "responses_over_time.png").is_file()


def test_what_cannot_be_shown_is_refused(inspect, tmp_path):
    with pytest.raises(ValueError, match="has no inspection: train with --config configs/inspect.yaml"):
        inspect(tmp_path)
    with pytest.raises(FileNotFoundError, match="neither a file nor a shipped policy"):
        inspect("defualt", "--out", tmp_path)
