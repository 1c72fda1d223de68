"""xgboost.train: the plain loop's rates, the round that they act on, and what stands beside it."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from metalr import LRPolicy, MetaLR
from metalr.core.update_rule import log_reference
from metalr.integrations import boosting_losses
from metalr.integrations.boosting_losses import LOSSES, Rows, read_rows
from metalr.integrations.xgboost import MetaLRTrainingCallback
from tests.conftest import random_policy
from tests.integrations.boosting import PROBLEMS, QUERY, known_objectives, params, rows, score

ROUNDS = 20
PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eta": 0.5, "nthread": 1}


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
    for more in ({}, {"base_score": 0.3}):
        rates, booster = plain_loop(data, policy, more.get("base_score", estimated))
        callback = MetaLRTrainingCallback(data, ROUNDS, policy)
        trained = xgboost.train(PARAMS | more, data, ROUNDS, callbacks=[callback])
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


class Replay(xgboost.callback.TrainingCallback):
    """Sets given rates, each for its round, and does nothing else."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates

    def before_iteration(self, model, epoch, evals_log) -> bool:
        model.set_param({"learning_rate": self.rates[epoch]})
        return False


def margins_of(booster: xgboost.Booster, data: xgboost.DMatrix) -> np.ndarray:
    return booster.predict(data, output_margin=True)


def test_all_objectives_of_this_xgboost_are_known():
    assert known_objectives() == sorted(LOSSES) == sorted(PROBLEMS)


VARIANTS = [{}, {"subsample": 0.5, "colsample_bytree": 0.5, "seed": 3}, {"base_score": 0.4}]


@pytest.mark.parametrize("more", VARIANTS, ids=str)
@pytest.mark.parametrize("objective", PROBLEMS)
def test_the_model_is_the_one_that_xgboost_grows_at_these_rates(objective, more):
    """The intercept that XGBoost estimates, its random numbers and its objective are left alone."""
    data, callback = rows(objective), MetaLRTrainingCallback(total_steps=5, policy=random_policy(strength=0.2))
    driven = xgboost.train(params(objective, **more), data, 5, callbacks=[callback])
    replayed = xgboost.train(params(objective, **more), data, 5, callbacks=[Replay(callback.rates)])
    assert len(set(callback.rates)) == 5
    assert np.array_equal(margins_of(driven, rows(objective, 1)), margins_of(replayed, rows(objective, 1)))


METRICS = {
    "multi:softmax": "mlogloss",
    "binary:hinge": None,
    "rank:map": None,
    "rank:ndcg": None,
    "rank:pairwise": None,
}
"""Metrics in the place of the problem's; None for a loss that XGBoost has no metric of."""


@pytest.mark.parametrize("objective", [name for name in PROBLEMS if METRICS.get(name, "") is not None])
def test_the_loss_is_that_of_xgboosts_own_metric(objective):
    metric = METRICS.get(objective, PROBLEMS[objective].metric)
    data = rows(objective)
    name = "multi:softprob" if objective == "multi:softmax" else objective
    booster = xgboost.train(params(name) | {"eval_metric": metric}, data, 5)
    margins = torch.from_numpy(margins_of(booster, data))
    read = read_rows(data, {"name": objective, "options": options_of(booster)})
    loss = LOSSES[objective](margins, read)
    value = float((read.weights.reshape(len(loss), -1) * loss.reshape(len(loss), -1)).sum())
    reported, labels = score(booster, data), read.labels.double()
    if metric in ("rmse", "rmsle"):
        value = (2.0 * value) ** 0.5
    elif metric == "poisson-nloglik":  # XGBoost's has log(y!) in it
        value += float(torch.lgamma(labels + 1.0).mean())
    elif metric == "cox-nloglik":  # a mean over the events alone
        value *= len(labels) / int((labels > 0).sum())
    elif metric == "quantile":  # a mean over the levels
        value /= 3.0
    elif objective == "binary:logitraw":
        reported = float(F.binary_cross_entropy_with_logits(margins.double(), labels))  # its metric takes raw margins
    assert value == pytest.approx(reported, rel=1e-3)


def options_of(booster: xgboost.Booster) -> dict[str, str]:
    objective = json.loads(booster.save_config())["learner"]["objective"]
    return {name: value for part in objective.values() if isinstance(part, dict) for name, value in part.items()}


def test_losses_by_hand():
    one = torch.tensor([1.0])
    ranked = Rows(torch.tensor([2.0, 0.0, 1.0, 1.0]), torch.full((4,), 0.25), groups=(2, 2))
    won = np.log1p(np.exp(-3.0))
    assert LOSSES["rank:ndcg"](torch.tensor([3.0, 0.0, 5.0, -5.0]), ranked).sum() == pytest.approx(won)  # ties: no pair
    hinge = LOSSES["binary:hinge"](torch.tensor([0.25, 0.25, 2.0]), Rows(torch.tensor([1.0, 0.0, 1.0]), one))
    assert hinge.tolist() == [0.75, 1.25, 0.0]
    options = {"aft_loss_distribution": "normal", "aft_loss_distribution_scale": "0.7"}
    sure = Rows(torch.empty(0), one, options, one, one)  # at its mean, of density 1 / (0.7 sqrt(2 pi))
    assert LOSSES["survival:aft"](torch.zeros(1), sure).item() == pytest.approx(np.log(0.7 * np.sqrt(2.0 * np.pi)))


def test_ranking_losses_do_not_depend_on_how_queries_are_batched(monkeypatch):
    groups = (3, 7, 1, 30, 2, 5)
    random = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(48, generator=random), torch.randint(3, (48,), generator=random).float()
    read = Rows(labels, torch.ones(48), groups=groups)
    whole = LOSSES["rank:ndcg"](scores, read)
    monkeypatch.setattr(boosting_losses, "PAIRS", 50)
    assert torch.allclose(LOSSES["rank:ndcg"](scores, read), whole)


@pytest.mark.parametrize("kind", ["normal", "logistic", "extreme"])
def test_censored_labels_have_finite_gradients_far_out(kind):
    """Bounds that are zero or infinite, and margins that are far from any."""
    low, high = torch.tensor([0.0, 0.0, 2.0, 2.0, 2.0, 1e4]), torch.tensor([2.0, np.inf, 2.0, 3.0, np.inf, 2e4])
    options = {"aft_loss_distribution": kind, "aft_loss_distribution_scale": "1"}
    read = Rows(torch.empty(0), torch.ones(6), options, low, high)
    for at in (-8.0, 0.0, 8.0):
        margins = torch.full((6,), at, requires_grad=True)
        loss = LOSSES["survival:aft"](margins, read)
        (gradient,) = torch.autograd.grad(loss.sum(), margins)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()
        assert gradient[1] == 0.0  # nothing is known of it
        assert (gradient[[0]] >= 0).all()
        assert (gradient[[4]] <= 0).all()


LEARNING = 40
"""Rounds of the trainings that are compared."""


def held_out(objective: str, rate: float, driven: bool = False) -> float:
    """XGBoost's metric, so that lower is better, on other rows; the mean of two trainings."""
    scores = []
    for seed in (0, 7):
        callbacks = [MetaLRTrainingCallback(total_steps=LEARNING)] if driven else []
        booster = xgboost.train(params(objective, eta=rate), rows(objective, seed), LEARNING, callbacks=callbacks)
        booster.set_param({"eval_metric": PROBLEMS[objective].metric})
        scores.append(PROBLEMS[objective].sign * score(booster, rows(objective, seed + 1)))
    return float(np.mean(scores))


BEHIND = {
    "binary:hinge": 0.25,
    "reg:absoluteerror": 0.13,
    "reg:linear": 0.26,
    "reg:pseudohubererror": 0.13,
    "reg:squarederror": 0.26,
    "reg:squaredlogerror": 0.2,
}
"""What the shipped policy may lose to the tuned constant rate, as a fraction; a tenth elsewhere.

Labels with little noise ask for more of the rate in the middle of the run than it gives.
"""


@pytest.mark.slow
@pytest.mark.parametrize("objective", PROBLEMS)
def test_each_objective_learns(objective):
    """From a rate of 0.1: about what the best of five constant rates comes to, and most of what that gains."""
    best = min(held_out(objective, rate) for rate in (0.03, 0.1, 0.2, 0.3, 1.0))
    found, start = held_out(objective, 0.1, driven=True), held_out(objective, 0.0)
    assert found <= best + BEHIND.get(objective, 0.1) * abs(best)
    assert start - found > 0.5 * (start - best)


def logistic(margins, data):
    probability = 1.0 / (1.0 + np.exp(-margins))
    return probability - data.get_label(), probability * (1.0 - probability)


def cross_entropy(margins, labels):
    return F.binary_cross_entropy_with_logits(margins, labels, reduction="none")


def test_an_objective_of_ones_own_learns_without_a_word_on_its_loss():
    """Its gradient shows how the loss changes: the rates are those with the loss itself."""
    data, rates = rows(), []
    for loss in (None, cross_entropy):
        callback = MetaLRTrainingCallback(total_steps=LEARNING, loss=loss)
        booster = xgboost.train(params("binary:logistic"), data, LEARNING, obj=logistic, callbacks=[callback])
        margins, labels = margins_of(booster, rows(seed=1)), rows(seed=1).get_label()
        found = F.binary_cross_entropy_with_logits(torch.from_numpy(margins), torch.from_numpy(labels))
        rates.append(callback.rates)
        constant = [xgboost.train(params("binary:logistic", eta=rate), data, LEARNING) for rate in (0.1, 0.2, 0.3)]
        assert float(found) <= 1.1 * min(score(one, rows(seed=1)) for one in constant)
    assert rates[0] == pytest.approx(rates[1], rel=0.1)


def test_an_objective_of_ones_own_grows_the_same_model_and_is_asked_once_a_round():
    data, calls = rows(), []

    def counted(margins, data):
        calls.append(1)
        return logistic(margins, data)

    callback = MetaLRTrainingCallback(total_steps=5)
    driven = xgboost.train({"eta": 0.3}, data, 5, obj=counted, callbacks=[callback])
    assert len(calls) == 5
    replayed = xgboost.train({"eta": 0.3}, data, 5, obj=logistic, callbacks=[Replay(callback.rates)])
    assert np.array_equal(margins_of(driven, data), margins_of(replayed, data))


def test_an_objective_of_ones_own_with_a_margin_for_each_class():
    data, options = rows("multi:softprob"), {"num_class": 3, "max_depth": 3, "disable_default_eval_metric": 1}

    def softmax(margins, data):
        probability = torch.from_numpy(margins).softmax(1).numpy()
        gradient = probability - np.eye(3)[data.get_label().astype(int)]
        return gradient.astype(np.float32), (2.0 * probability * (1.0 - probability)).astype(np.float32)

    callback = MetaLRTrainingCallback(total_steps=LEARNING)
    booster = xgboost.train(options, data, LEARNING, obj=softmax, callbacks=[callback])
    valid = rows("multi:softprob", 1)
    found = F.cross_entropy(torch.from_numpy(margins_of(booster, valid)), torch.from_numpy(valid.get_label()).long())
    constant = [xgboost.train(params("multi:softprob", eta=rate), data, LEARNING) for rate in (0.1, 0.2, 0.3)]
    assert float(found) <= 1.1 * min(score(one, valid) for one in constant)


@settings(max_examples=8, deadline=None)
@given(shift=st.floats(-100.0, 100.0), factor=st.floats(0.01, 100.0), seed=st.integers(0, 5))
def test_the_unit_and_the_zero_of_the_labels_change_no_rate(shift, factor, seed):
    x = np.random.default_rng(seed).normal(size=(200, 4))
    labels, rates = x[:, 0] + x[:, 1] * x[:, 2], []
    for target in (labels, factor * (labels + shift)):
        callback = MetaLRTrainingCallback(total_steps=8)
        xgboost.train({"nthread": 1}, xgboost.DMatrix(x, target), 8, callbacks=[callback])
        rates.append(callback.rates)
    assert rates[0] == pytest.approx(rates[1], rel=5e-2)


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
@pytest.mark.parametrize("objective", ["reg:squarederror", "reg:absoluteerror", "binary:logistic"])
def test_labels_of_several_columns(objective, strategy):
    x = np.random.default_rng(0).normal(size=(300, 4))
    labels = np.stack([x[:, 0] + x[:, 1] * x[:, 2], 2.0 * x[:, 3] + 1.0, x[:, 0] * x[:, 3]], 1)
    labels = labels > 0.3 if objective == "binary:logistic" else labels
    data = xgboost.DMatrix(x, labels.astype(float), weight=np.linspace(0.5, 2.0, 300))
    options = {"objective": objective, "multi_strategy": strategy, "tree_method": "hist", "nthread": 1, "max_depth": 3}

    def end(rate, callbacks=()):
        booster = xgboost.train(options | {"eta": rate}, data, LEARNING, callbacks=list(callbacks))
        error = torch.from_numpy(margins_of(booster, data))
        targets = torch.from_numpy(labels.astype(np.float32))
        if objective == "binary:logistic":
            return float(F.binary_cross_entropy_with_logits(error, targets))
        return float((error - targets).abs().mean())

    callback = MetaLRTrainingCallback(total_steps=LEARNING)
    assert end(0.1, [callback]) < 1.1 * end(0.1)
    assert len(callback.rates) == LEARNING


def test_weights_and_scale_pos_weight_weigh_the_loss_alike():
    objective = {"name": "binary:logistic"}
    weighted = rows(weight=np.where(rows().get_label() == 1.0, 3.0, 1.0))
    one = read_rows(weighted, objective).weights
    other = read_rows(rows(), objective | {"reg_loss_param": {"scale_pos_weight": "3"}}).weights
    assert torch.allclose(one, other)
    assert float(one.sum()) == pytest.approx(1.0)
    assert one.unique().numel() == 2


def test_a_weight_of_a_query_is_that_of_each_of_its_rows():
    weight = np.arange(1.0, 21.0)
    data = rows("rank:ndcg", weight=weight)
    found = read_rows(data, {"name": "rank:ndcg"}).weights
    assert found.numpy() == pytest.approx(np.repeat(weight, QUERY) / np.repeat(weight, QUERY).sum(), rel=1e-5)
    callback = MetaLRTrainingCallback(total_steps=3)
    xgboost.train(params("rank:ndcg"), data, 3, callbacks=[callback])
    assert len(callback.rates) == 3


def arrays(count: int = 200):
    data = rows(count=count)
    return data.get_data().toarray(), data.get_label().astype(int)


def test_an_estimator_that_scikit_learn_clones():
    x, y = arrays()
    estimator = xgboost.XGBClassifier(n_estimators=10, max_depth=2, callbacks=[MetaLRTrainingCallback(total_steps=10)])
    assert len(cross_val_score(estimator, x, y, cv=3)) == 3
    assert estimator.callbacks[0].rates == []  # the folds had copies
    search = GridSearchCV(estimator, {"max_depth": [2, 3]}, cv=2).fit(x, y)
    assert len(search.best_estimator_.callbacks[0].rates) == 10
    for other in (clone(search.best_estimator_), copy.deepcopy(search.best_estimator_)):
        assert other.callbacks[0].rates == []
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    assert np.array_equal(again.predict(x), search.best_estimator_.predict(x))


def test_estimators_of_each_kind_drive_their_own_rows():
    x, y = arrays()
    several = np.stack([x[:, 0] > 0, x[:, 1] > 0], 1).astype(int)
    levels = {"objective": "reg:quantileerror", "quantile_alpha": [0.2, 0.8]}
    own = {"objective": lambda labels, margins: (margins - labels, np.ones_like(margins))}
    for kind, target, options, fit in (
        (xgboost.XGBRegressor, x[:, 0], {}, {}),
        (xgboost.XGBRegressor, x[:, 0], levels, {}),
        (xgboost.XGBRegressor, x[:, 0], own, {}),
        (xgboost.XGBClassifier, several, {}, {}),
        (xgboost.XGBRanker, y, {}, {"qid": np.repeat(np.arange(10), 20)}),
    ):
        callback = MetaLRTrainingCallback(total_steps=5)
        kind(n_estimators=5, callbacks=[callback], **options).fit(x, target, **fit)
        assert len(callback.rates) == 5


@pytest.mark.parametrize("name", ["eta", "learning_rate"])
@pytest.mark.parametrize("stored", ["memory", "raw", "file"])
def test_a_model_that_goes_on_begins_at_the_rate_that_was_asked_for(name, stored, tmp_path):
    """Not at the one that the training before came to; in memory a rate that is not given stays the given one."""
    data, given = rows(), {"objective": "binary:logistic", name: 0.25}
    first = xgboost.train(given, data, 10, callbacks=[MetaLRTrainingCallback(total_steps=10)])
    first.save_model(tmp_path / "model.ubj")
    model = {"memory": first, "raw": first.save_raw(), "file": tmp_path / "model.ubj"}[stored]
    for asked, expected in (({name: 0.7}, 0.7), ({}, 0.25 if stored == "memory" else 0.3)):
        callback = MetaLRTrainingCallback(total_steps=10)
        xgboost.train({"objective": "binary:logistic"} | asked, data, 10, xgb_model=model, callbacks=[callback])
        assert callback.meta_lr.base_lrs == pytest.approx([expected])


def test_a_booster_is_pickled_on_the_way(tmp_path):
    data, check = rows(), xgboost.callback.TrainingCheckPoint(tmp_path, as_pickle=True, interval=1)
    xgboost.train(PARAMS, data, 3, callbacks=[check, MetaLRTrainingCallback(total_steps=3)])
    assert len(list(tmp_path.iterdir())) == 2


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


def test_what_it_cannot_drive_is_refused(monkeypatch):
    data = rows()
    made = lambda *arguments: [MetaLRTrainingCallback(*arguments)]  # noqa: E731
    with pytest.raises(ValueError, match="booster='dart'"):
        xgboost.train(PARAMS | {"booster": "dart"}, data, 2, callbacks=made(data, 2))
    with pytest.raises(ValueError, match="booster='gblinear'"):
        xgboost.train({"objective": "binary:logistic", "booster": "gblinear"}, data, 2, callbacks=made(data, 2))
    grown = xgboost.train(PARAMS, data, 2)
    refresh = PARAMS | {"process_type": "update", "updater": "refresh"}
    with pytest.raises(ValueError, match="updater='refresh' grows no tree, so"):
        xgboost.train(refresh, data, 2, xgb_model=grown, callbacks=made(data, 2))
    with pytest.raises(RuntimeError, match=r"use xgboost.train"):
        xgboost.cv(PARAMS, data, 2, nfold=2, callbacks=made(data, 2))
    unlabelled = xgboost.DMatrix(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="dtrain has no labels"):
        xgboost.train(PARAMS, data, 2, callbacks=made(unlabelled, 2))
    with pytest.raises(ValueError, match=r"was set by something else.*remove LearningRateScheduler"):
        xgboost.train(PARAMS, data, 3, callbacks=[xgboost.callback.LearningRateScheduler([0.1] * 3), *made(data, 3)])
    mean = MetaLRTrainingCallback(total_steps=3, loss=lambda m, y: cross_entropy(m, y).mean())
    with pytest.raises(ValueError, match=r"loss= gave shape \(\): give a loss for each of 400 rows"):
        xgboost.train(PARAMS, data, 3, callbacks=[mean])
    monkeypatch.delitem(LOSSES, "binary:logistic")
    with pytest.raises(ValueError, match="objective='binary:logistic': give its loss="):
        xgboost.train(PARAMS, data, 2, callbacks=made(data, 2))
    own = MetaLRTrainingCallback(data, 2, loss=cross_entropy)
    xgboost.train(PARAMS, data, 2, callbacks=[own])
    assert len(own.rates) == 2
