"""xgboost.train: the plain loop's rates, the round that they act on, and what stands beside it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xgboost

from metalr import LRPolicy, MetaLR
from metalr.core.update_rule import log_reference
from metalr.integrations.xgboost import MetaLRTrainingCallback
from tests.conftest import random_policy

ROUNDS = 20
PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.5, "nthread": 1}


def rows(objective: str = "binary:logistic", seed: int = 0, count: int = 400, **options) -> xgboost.DMatrix:
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 6))
    signal = x[:, 0] + x[:, 1] * x[:, 2] + random.normal(size=count)
    labels = {
        "binary:logistic": signal > 0.8,
        "reg:squarederror": 3.0 * signal + 5.0,
        "multi:softprob": np.digitize(signal, [-0.5, 1.0]),
        "count:poisson": random.poisson(np.exp(0.3 * signal)),
        "reg:pseudohubererror": signal,
    }
    return xgboost.DMatrix(x, labels[objective].astype(float), **options)


class Margins(torch.optim.Optimizer):
    """An optimizer of which MetaLR needs the rate and the parameters alone."""


def plain_loop(data: xgboost.DMatrix, policy, base_score: float) -> tuple[list[float], xgboost.Booster]:
    """Boosting by hand: the margins' gradient is p - y, and each tree is grown at the rate decided for it."""
    booster = xgboost.Booster(PARAMS | {"base_score": base_score}, [data])
    margins = torch.nn.Parameter(torch.zeros(data.num_row()))
    meta_lr = MetaLR(Margins([margins], {"lr": PARAMS["eta"]}), ROUNDS, policy)
    labels, rates = torch.from_numpy(data.get_label()), []
    for step in range(ROUNDS):
        margins.data = torch.from_numpy(booster.predict(data, output_margin=True))
        margins.grad = (margins.detach().sigmoid() - labels) / len(labels)
        meta_lr.step(F.binary_cross_entropy_with_logits(margins, labels).detach())
        rates += meta_lr.last_lr
        booster.set_param("learning_rate", rates[-1])
        booster.update(data, step)
    return rates, booster


def test_its_rates_and_trees_are_the_plain_loops():
    """Also where XGBoost estimates the intercept in its first round."""
    data, policy = rows(), random_policy(strength=0.2)
    estimated = str(data.get_label().mean(dtype=np.float64).astype(np.float32))
    for given in ({}, {"base_score": 0.3}):
        rates, booster = plain_loop(data, policy, given.get("base_score", estimated))
        callback = MetaLRTrainingCallback(data, ROUNDS, policy)
        trained = xgboost.train(PARAMS | given, data, ROUNDS, callbacks=[callback])
        assert callback.rates == pytest.approx(rates, rel=1e-4)
        assert np.allclose(trained.predict(data), booster.predict(data), atol=1e-5)
        assert len(set(rates)) == ROUNDS


def leaf_ratio(booster: xgboost.Booster, other: xgboost.Booster, tree: int) -> float:
    frames = (model.trees_to_dataframe() for model in (booster, other))
    first, second = (f.query(f"Tree == {tree} and Feature == 'Leaf'")["Gain"].to_numpy() for f in frames)
    return float((first / second).mean())


def test_a_rate_acts_on_the_round_that_it_was_decided_for():
    """Leaves of the first tree are proportional to its rate."""
    data = rows()
    callback = MetaLRTrainingCallback(data, ROUNDS, random_policy())
    first = xgboost.train(PARAMS, data, 1, callbacks=[callback])
    without = xgboost.train(PARAMS, data, 1)
    assert callback.rates[0] / PARAMS["eta"] == pytest.approx(leaf_ratio(first, without, 0), rel=1e-3)
    assert abs(callback.rates[0] / PARAMS["eta"] - 1.0) > 0.05


def test_an_untrained_policy_is_the_reference_schedule():
    data = rows()
    callback = MetaLRTrainingCallback(data, ROUNDS, LRPolicy())
    xgboost.train(PARAMS, data, ROUNDS, callbacks=[callback])
    assert callback.rates == pytest.approx([0.5 * np.exp(log_reference(t, ROUNDS)) for t in range(ROUNDS)], rel=1e-5)


@pytest.mark.parametrize("objective", ["reg:squarederror", "multi:softprob", "count:poisson"])
def test_the_gradient_is_that_of_the_objective(objective):
    """The trees go down the very loss that is told, which is XGBoost's own metric."""
    data = rows(objective)
    params = PARAMS | {"objective": objective} | ({"num_class": 3} if objective.startswith("multi") else {})
    callback = MetaLRTrainingCallback(data, ROUNDS, random_policy(strength=0.05))
    trained = xgboost.train(params, data, ROUNDS, callbacks=[callback])
    alone = xgboost.train(params, data, 1)
    margins = torch.from_numpy(alone.predict(data, output_margin=True)).requires_grad_()
    loss = callback._row_losses(margins, torch.from_numpy(data.get_label())).mean()
    (gradient,) = torch.autograd.grad(loss, margins)
    step = trained.predict(data, output_margin=True) - margins.detach().numpy()
    assert float((gradient.numpy() * step).sum()) < 0
    metric = {"reg:squarederror": "rmse", "multi:softprob": "mlogloss", "count:poisson": "poisson-nloglik"}[objective]
    alone.set_param("eval_metric", metric)
    told = float(alone.eval(data).split(":")[-1])
    expected = float(loss.detach())
    if objective == "reg:squarederror":
        expected = (2.0 * expected) ** 0.5
    if objective == "count:poisson":  # XGBoost's has log(y!) in it
        expected += float(torch.lgamma(torch.from_numpy(data.get_label()) + 1.0).mean())
    assert expected == pytest.approx(told, rel=1e-4)


def test_weights_and_scale_pos_weight_weigh_the_loss_alike():
    labels = rows().get_label()
    weighted = rows(weight=np.where(labels == 1.0, 3.0, 1.0))
    callbacks = [MetaLRTrainingCallback(data, ROUNDS) for data in (weighted, rows(), rows())]
    for callback, positive in zip(callbacks, (1.0, 3.0, 1.0), strict=True):
        xgboost.train(PARAMS | {"scale_pos_weight": positive}, callback._rows, 1, callbacks=[callback])
    one, other, neither = (callback._weights for callback in callbacks)
    assert torch.allclose(one, other)
    assert not torch.allclose(one, neither)


def test_evaluation_and_early_stopping_work_beside_it():
    data, valid = rows(), rows(seed=1)
    log: dict = {}
    callback = MetaLRTrainingCallback(data, 400)
    booster = xgboost.train(
        PARAMS | {"max_depth": 6},
        data,
        400,
        evals=[(valid, "valid")],
        early_stopping_rounds=5,
        evals_result=log,
        verbose_eval=False,
        callbacks=[callback],
    )
    assert len(log["valid"]["logloss"]) == len(callback.rates) == booster.num_boosted_rounds() < 400
    assert booster.best_score == min(log["valid"]["logloss"])


def test_training_goes_on_from_a_model_without_a_horizon():
    data = rows()
    start = xgboost.train(PARAMS, data, 5)
    callback = MetaLRTrainingCallback(data)
    booster = xgboost.train(PARAMS, data, 5, xgb_model=start, callbacks=[callback])
    assert booster.num_boosted_rounds() == 10
    assert callback.meta_lr.policy.anytime


def test_what_it_cannot_drive_is_refused():
    data = rows("reg:pseudohubererror")
    params = PARAMS | {"objective": "reg:pseudohubererror"}
    with pytest.raises(ValueError, match="objective='reg:pseudohubererror': give its loss="):
        xgboost.train(params, data, 2, callbacks=[MetaLRTrainingCallback(data, 2)])
    own = MetaLRTrainingCallback(data, 2, loss=lambda m, y: F.huber_loss(m, y, reduction="none"))
    xgboost.train(params, data, 2, callbacks=[own])
    assert len(own.rates) == 2
    with pytest.raises(ValueError, match="booster='dart'"):
        xgboost.train(PARAMS | {"booster": "dart"}, rows(), 2, callbacks=[MetaLRTrainingCallback(rows(), 2)])
    with pytest.raises(RuntimeError, match=r"use xgboost.train"):
        xgboost.cv(PARAMS, rows(), 2, nfold=2, callbacks=[MetaLRTrainingCallback(rows(), 2)])
    unlabelled = xgboost.DMatrix(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="dtrain has no labels"):
        xgboost.train(PARAMS, rows(), 2, callbacks=[MetaLRTrainingCallback(unlabelled, 2)])
