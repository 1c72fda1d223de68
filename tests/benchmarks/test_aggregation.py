"""A direction is made of one half of the task batches and judged on the other."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks import aggregation
from benchmarks.rows import read
from metalr import LRPolicy
from metalr.core.features import FEATURES
from metalr.meta import Component, MetaTasksDataModule
from metalr.meta.families import QuadraticTasks


def linear_policy() -> LRPolicy:
    """Its action is w1 * progress + w2 * early + b."""
    return LRPolicy(["progress", "early"], hidden=())


def states(*rows: tuple[float, float]) -> torch.Tensor:
    features = torch.zeros(len(rows), len(FEATURES))
    features[:, [FEATURES.index("progress"), FEATURES.index("early")]] = torch.tensor(rows)
    return features


def test_the_change_of_the_actions_weighs_task_batches_alike():
    """Along (1, 2, 3) the actions change by 4 and 5 in one task batch, mean square 20.5, and by 3 in the other."""
    visited = [states((1.0, 0.0), (0.0, 1.0)), states((0.0, 0.0))]
    change = aggregation.action_change(linear_policy(), torch.tensor([1.0, 2.0, 3.0]), visited)
    assert change == pytest.approx(((20.5 + 9.0) / 2) ** 0.5)


def test_the_gain_is_the_fall_of_losses_for_a_change_of_one():
    """Slopes along (0, 0, 2) of the units (0, 0, 1) and (0.6, 0, 0.8) are 2 and 1.6, and all actions change by 2."""
    judges = [
        aggregation.Sample(torch.tensor([0.0, 0.0, 5.0]), states((1.0, 1.0))),
        aggregation.Sample(torch.tensor([3.0, 0.0, 4.0]), states((0.0, 1.0))),
    ]
    assert aggregation.gain(linear_policy(), torch.tensor([0.0, 0.0, 2.0]), judges) == pytest.approx(0.9)


def test_the_table_has_every_direction(tmp_path, monkeypatch, capsys):
    small = QuadraticTasks(train_sizes=(32,), valid_size=16)
    data = MetaTasksDataModule({"quadratic": Component(small, horizons=(5, 9))})
    monkeypatch.setattr(aggregation, "configured", lambda *_: (SimpleNamespace(), data))
    aggregation.main(batches=6, splits=3, pairs=2, compiled=False, docs=tmp_path)
    rows = read(tmp_path / "aggregation.csv")
    assert [row["aggregator"] for row in rows] == 3 * list(aggregation.AGGREGATORS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(aggregation.AGGREGATORS)
    gains = [float(row["gain"]) for row in rows if row["aggregator"] == "mean"]
    assert lines[2].startswith(f"| mean | {sum(gains) / 3:.3f} |")
