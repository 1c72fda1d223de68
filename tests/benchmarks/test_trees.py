"""The suite of boosted trees: that its loop grows XGBoost's own trees, of every objective, and that its tasks learn."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xgboost

from benchmarks.suites.boosting import ObjectiveProblem
from benchmarks.suites.problem import Data, Split
from benchmarks.suites.runs import LOSS, Run
from benchmarks.suites.training import Setting
from benchmarks.trees import data
from benchmarks.trees.suite import SUITE, TreesRun
from benchmarks.trees.tasks import TASKS
from metalr import MetaLR
from metalr.core.guards import Guards
from metalr.integrations.xgboost import MetaLRTrainingCallback
from metalr.meta.boosting_task import OBJECTIVES
from models import Boosting
from tests.benchmarks.trained import trained
from tests.conftest import random_policy
from tests.text import DATA, datasets_cache, needs_data

__all__ = ["datasets_cache"]

OWN = {"logistic": "logloss", "softmax": "mlogloss", "squared": "rmse"}
"""XGBoost's name of what each objective is measured by."""


def table(objective: str) -> Data:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, generator=generator)
    score = features[:, 0] + 0.5 * features[:, 1].square()
    labels = {"logistic": (score > 0.5).float(), "softmax": (score > 0.0).long() + (score > 1.0).long()}
    rows = Split((features,), labels.get(objective, (score - score[:150].mean()) / score[:150].std(correction=0)))
    return Data(rows.rows(slice(150)), rows.rows(slice(150, None)))


@pytest.mark.parametrize("objective", OWN)
def test_its_trees_are_those_of_xgboost(objective: str):
    """Margins and losses of eight rounds at two rates; XGBoost derives in its own code, and we by autograd."""
    parts = table(objective)
    problem = ObjectiveProblem(objective, parts, 3, 0)
    training = Setting("boosting", "step", 0.5, 8).start(problem)
    for _ in range(8):
        training.step(problem.loss())
    rates = [0.5] * 4 + [0.05] * 2 + [0.005] * 2
    own = OBJECTIVES[objective]
    params = {"objective": own.name, "max_depth": 3, "tree_method": "hist", "seed": 0, "eval_metric": OWN[objective]}
    params["base_score"] = float(own.base_score(parts.train.labels[None].float()))
    params |= {"num_class": 3} if objective == "softmax" else {}
    train, val = (xgboost.DMatrix(part.inputs[0].numpy(), part.labels.numpy()) for part in parts)
    booster = xgboost.Booster(params, [train])
    for number, rate in enumerate(rates):
        booster.set_param({"learning_rate": rate})
        booster.update(train, number)
    outputs, labels = problem.validate()
    np.testing.assert_allclose(outputs.numpy(), booster.predict(val, output_margin=True), rtol=1e-4, atol=1e-5)
    loss = float(booster.eval(val).partition("eval-")[2].partition(":")[2])
    assert problem.val_loss() == pytest.approx(loss**2 / 2 if objective == "squared" else loss, rel=1e-4)
    assert problem.chance() <= problem.metric(outputs, labels) <= 1.0


@pytest.mark.parametrize("objective", OWN)
def test_a_policy_sets_the_rates_of_an_xgboost_train_with_its_callback(objective: str):
    parts, policy = table(objective), random_policy(strength=0.1)
    problem, own = ObjectiveProblem(objective, parts, 3, 0), OBJECTIVES[objective]
    optimizer = Boosting(problem.model.parameters(), lr=0.5)
    meta_lr, rates = MetaLR(optimizer, 8, policy, guards=Guards.none()), []
    for _ in range(8):
        optimizer.zero_grad()
        loss = problem.loss()
        loss.backward()
        meta_lr.step(loss)
        rates += meta_lr.last_lr
        optimizer.step()
    params = {"objective": own.name, "max_depth": 3, "tree_method": "hist", "eta": 0.5}
    params["base_score"] = float(own.base_score(parts.train.labels[None].float()))
    params |= {"num_class": 3} if objective == "softmax" else {}
    callback = MetaLRTrainingCallback(total_steps=8, policy=policy, guards=Guards.none())
    train = xgboost.DMatrix(parts.train.inputs[0].numpy(), parts.train.labels.numpy())
    xgboost.train(params, train, 8, callbacks=[callback])
    assert rates == pytest.approx(callback.rates, rel=1e-2)
    assert len(set(rates)) == 8


@pytest.mark.parametrize("task", ["cancer", "digits", "diabetes"])
def test_a_task_learns_on_data_that_comes_with_the_packages(task: str, tmp_path: Path):
    learns(task, tmp_path, None)


@pytest.mark.slow
@needs_data
def test_adult_learns(tmp_path: Path):
    learns("adult", tmp_path, DATA)


def learns(task: str, folder: Path, root: str | None) -> None:
    """A cosine lowers the held-out loss; no learned schedule is looked at here."""
    run = TreesRun(Run(task, "boosting", 20, "cosine", SUITE.usual["boosting"], 0), folder, root)
    losses = trained(run).curves[LOSS][1]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


def test_held_out_rows_are_always_the_same_and_are_not_trained_on():
    for load in (data.cancer, data.digits, data.diabetes):
        train, val = load(None)
        assert torch.equal(val.labels, load(None).val.labels)
        assert not (val.inputs[0][:, None] == train.inputs[0]).all(2).any()
    assert set(TASKS) == {"adult", "cancer", "digits", "diabetes"}
