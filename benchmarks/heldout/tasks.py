"""The suite's tasks: a network with its data, or boosted trees, as one problem that a plain loop trains."""

from __future__ import annotations

from benchmarks.heldout import data
from benchmarks.heldout.networks import Bert, CharacterTransformer, ResNet8
from benchmarks.suites.boosting import BoostingProblem
from benchmarks.suites.problem import NetworkProblem, Problem
from benchmarks.suites.suite import Novelty, Task
from models import ConvNet, TabularMLP

USUAL_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "boosting": 0.1}
"""Middle of the range of initial rates, by optimizer."""


def _adult(root: str | None, seed: int) -> Problem:
    sizes = data.adult_category_sizes(root)
    return NetworkProblem(lambda: TabularMLP(6, sizes, hidden=(64, 32)), data.adult(root), 64, seed)


TASKS: dict[str, Task] = {
    "digits": Task(
        "convnet on real digits, batch 32",
        (100, 500),
        lambda root, seed: NetworkProblem(ConvNet, data.digits(root), 32, seed),
        Novelty("drawn: all rows, these held-out ones, too", "kind drawn", "drawn", "500: beyond convnets'"),
        drawn=True,
    ),
    "adult": Task(
        "perceptron with embeddings on Adult, batch 64",
        (100, 500),
        _adult,
        Novelty("new; random tables drawn", "kind drawn; dropout in it new"),
        metric="AUC",
    ),
    "xgboost": Task(
        "XGBoost, depth 6, on 4,000 rows of Adult",
        (50, 250),
        lambda root, seed: BoostingProblem(*data.adult_arrays(root), 6, seed),
        Novelty("new; random tables drawn", "trees of this depth drawn"),
        ("boosting",),
        metric="AUC",
    ),
    "cifar10": Task(
        "batch-normalised ResNet-8, width 8, on CIFAR-10 at 16x16, batch 32",
        (60, 300),
        lambda root, seed: NetworkProblem(ResNet8, data.cifar10(root), 32, seed),
        Novelty("new; smooth random images drawn", "new; plain convnets drawn"),
    ),
    "sst2": Task(
        "2-layer BERT, width 32, on SST-2, batch 32",
        (80, 400),
        lambda root, seed: NetworkProblem(Bert, data.sst2(root), 32, seed),
        Novelty("new; random sentences drawn since this cell failed", "kind drawn since then"),
        ("adamw",),  # with SGD it learns nothing in so few steps, at any rate: there is nothing to compare
    ),
    "characters": Task(
        "2-layer causal transformer, width 32, on SQuAD's paragraphs, batch 16 x 32 characters",
        (60, 300),
        lambda root, seed: NetworkProblem(CharacterTransformer, data.characters(root), 16, seed),
        Novelty("new; random Markov chains drawn", "kind drawn"),
    ),
}
"""By name."""
