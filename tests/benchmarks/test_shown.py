"""What a validation loss is worth to a shipped policy: the same runs where it is shown one and where it is not."""

import math

import pytest

from benchmarks import shown
from benchmarks.rows import read
from metalr.meta import HeldOutTask
from metalr.meta.families import QuadraticTasks


def test_both_arms_have_the_same_runs_and_what_is_there_is_kept(tmp_path, monkeypatch):
    tasks = [HeldOutTask(name, QuadraticTasks(), "sgd", 20, instances=3, rates=2) for name in ("a", "b")]
    monkeypatch.setattr(shown, "heldout_tasks", lambda policy: tasks)
    test, seen = shown.tested, []

    def watched(policy, task):
        seen.append((task.name, task.seed, task.validation_interval))
        return test(policy, task)

    monkeypatch.setattr(shown, "tested", watched)
    shown.main(seeds=(2,), docs=tmp_path)
    assert seen == [("a", 2, 20), ("a", 2, 2), ("b", 2, 20), ("b", 2, 2)]
    rows = read(tmp_path / "shown-default.csv")
    assert [(row["task"], row["instance"]) for row in rows] == [(name, i) for name in "ab" for i in "012"]
    assert any(float(row["log_ratio"]) != 0.0 for row in rows)
    assert (tmp_path / "shown-default.png").is_file()
    shown.main(seeds=(2, 3), docs=tmp_path)
    assert [at for _, at, _ in seen[4:]] == [3] * 4


def test_the_mean_is_geometric_over_instances_and_that_of_all_over_tasks():
    rows = [{"task": "a", "log_ratio": "0.1"}, {"task": "a", "log_ratio": "-0.3"}, {"task": "b", "log_ratio": "-0.3"}]
    found = shown.compared([*rows, {"task": "b", "log_ratio": "-0.3"}])
    assert found["a"].value == pytest.approx(math.exp(-0.1))
    assert found["all"].value == pytest.approx(math.exp(-0.2))


def test_a_policy_that_reads_no_validation_loss_is_refused(tmp_path):
    with pytest.raises(ValueError, match="policy='anytime': it does not read a validation loss"):
        shown.main("anytime", docs=tmp_path)
