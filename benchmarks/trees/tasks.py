"""The suite's tasks: tables that are usual, each trained in a short and a long run."""

from __future__ import annotations

from benchmarks.heldout import data as development
from benchmarks.suites.boosting import BoostingProblem, ObjectiveProblem
from benchmarks.suites.suite import Novelty, Task
from benchmarks.trees import data

USUAL_LR = {"boosting": 0.1}
"""Middle of the range of initial rates."""

HORIZONS = (50, 300)
"""Trees; of ten classes, ten at a time."""

CHOSE = Novelty("not drawn; among the tasks that chose the policy", "trees of this depth drawn")
"""Of data that the meta-training of `boosting` is scored on."""

TASKS: dict[str, Task] = {
    "adult": Task(
        "XGBoost, depth 6, on 4,000 rows of Adult",
        HORIZONS,
        lambda root, seed: BoostingProblem(*development.adult_arrays(root), 6, seed),
        Novelty("new; the development suite has it for 50 and 250 trees", "trees of this depth drawn"),
        ("boosting",),
        metric="AUC",
    ),
    "cancer": Task(
        "XGBoost, depth 3 with half of the rows a tree, on Wisconsin's breast cancers, 426 rows of 30 numbers",
        HORIZONS,
        lambda root, seed: ObjectiveProblem("logistic", data.cancer(root), 3, seed, subsample=0.5),
        CHOSE,
        ("boosting",),
        metric="AUC",
    ),
    "digits": Task(
        "XGBoost, depth 4 with half of the rows a tree, on scikit-learn's digits, ten classes, 1,077 rows",
        HORIZONS,
        lambda root, seed: ObjectiveProblem("softmax", data.digits(root), 4, seed, subsample=0.5),
        CHOSE,
        ("boosting",),
    ),
    "diabetes": Task(
        "XGBoost, depth 3 with half of the rows a tree, on diabetes, squared error, 332 rows of 10 numbers",
        HORIZONS,
        lambda root, seed: ObjectiveProblem("squared", data.diabetes(root), 3, seed, subsample=0.5),
        CHOSE,
        ("boosting",),
        metric="R2",
    ),
}
"""By name."""
