"""A suite of seconds: a classifier, a regression and boosted trees on a few random rows."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from benchmarks.suites.boosting import BoostingProblem
from benchmarks.suites.command import POLICIES, suite_runs
from benchmarks.suites.problem import Data, NetworkProblem, RegressionProblem, Split
from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.suite import Novelty, Suite, Task
from datamodules.adult import Arrays

SHIPPED = {name: name for name in POLICIES}


def noise(seed: int = 0, dropout: float = 0.5) -> NetworkProblem:
    """A convnet with batch norm and dropout on random images of two classes."""
    generator = torch.Generator().manual_seed(7)
    rows = Split((torch.randn(40, 3, 4, 4, generator=generator),), torch.arange(40) % 2)
    network = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(dropout), nn.Linear(16, 2)
    )
    return NetworkProblem(network, Data(rows, rows.rows(slice(8))), 8, seed)


def line(seed: int = 0) -> RegressionProblem:
    """A line through noisy values."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(40, 3, generator=generator)
    rows = Split((inputs,), inputs.sum(1) + 0.1 * torch.randn(40, generator=generator))
    network = lambda: nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))  # noqa: E731
    return RegressionProblem(network, Data(rows, rows.rows(slice(8))), 8, seed)


def trees(seed: int = 0) -> BoostingProblem:
    """Two columns of numbers, the first of which is the label's."""
    features = np.random.default_rng(7).standard_normal((60, 2)).astype("float32")
    labels = (features[:, 0] + features[::-1, 1] > 0).astype("float32")  # half of which cannot be learned
    val = Split((torch.from_numpy(features[:20]), torch.empty(20, 0, dtype=torch.long)), torch.from_numpy(labels[:20]))
    return BoostingProblem(Arrays(features, labels, ["a", "b"], ["q", "q"]), val, 2, seed)


TASKS = {
    "noise": Task("noise", (4, 12), lambda root, seed: noise(seed), Novelty("drawn", "new"), drawn=True),
    "line": Task("line", (4, 12), lambda root, seed: line(seed), Novelty("new", "new"), ("adamw",), "R2"),
    "trees": Task("trees", (2, 4), lambda root, seed: trees(seed), Novelty("new", "new"), ("boosting",), "AUC"),
}

SUITE = Suite(
    "toy",
    "A toy",
    "Of seconds.",
    TASKS,
    {"sgd": 0.1, "adamw": 1e-3, "boosting": 0.1},
    baselines=("linear_warmup", "cosine", "constant", "finder_cosine", "schedule_free_adamw", "dog"),
    points=4,
    rates=2,
    seeds=1,
)


class ToyRun(SuiteRun):
    """Trains one run of it."""

    suite: ClassVar[Suite] = SUITE


def toy_runs(out: Path, **sources: str) -> list[SuiteRun]:
    """All runs of it; `sources` are policies other than the shipped ones."""
    return suite_runs(ToyRun, out, None, SHIPPED | sources)
