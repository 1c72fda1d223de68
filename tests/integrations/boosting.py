"""A small problem for each objective of XGBoost, with the metric that XGBoost reports on it."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xgboost


def known_objectives() -> list[str]:
    """All that this XGBoost trains, as it lists them."""
    try:
        xgboost.train({"objective": "?"}, xgboost.DMatrix(np.zeros((2, 1)), [0, 1]), 1)
    except xgboost.core.XGBoostError as error:
        return sorted(re.findall(r"Objective candidate: (\S+)", str(error)))
    raise AssertionError("an unknown objective was trained")


@dataclass(frozen=True)
class Problem:
    """Metric (of which `sign` times lower is better), labels from the signal and a generator, and parameters."""

    metric: str
    labels: Any
    params: dict = field(default_factory=dict)
    sign: float = 1.0


QUERY = 20
"""Rows of a query."""


def _signal(x, random):
    return x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * random.normal(size=len(x))


def _positive(signal, random):
    return np.exp(0.5 * signal)


def _grades(signal, random):
    return np.digitize(signal, [-1.0, 0.0, 1.0])


def _one(signal, random):
    return signal > 0.8


def _value(signal, random):
    return 3.0 * signal + 5.0


PROBLEMS = {
    "binary:hinge": Problem("error", _one),
    "binary:logistic": Problem("logloss", _one),
    "binary:logitraw": Problem("auc", _one, sign=-1.0),
    "count:poisson": Problem("poisson-nloglik", lambda s, random: random.poisson(np.exp(0.3 * s))),
    "multi:softmax": Problem("merror", lambda s, _: np.digitize(s, [-0.5, 1.0]), {"num_class": 3}),
    "multi:softprob": Problem("mlogloss", lambda s, _: np.digitize(s, [-0.5, 1.0]), {"num_class": 3}),
    "rank:map": Problem("map", lambda s, _: s > 0.5, sign=-1.0),
    "rank:ndcg": Problem("ndcg", _grades, sign=-1.0),
    "rank:pairwise": Problem("ndcg", _grades, sign=-1.0),
    "reg:absoluteerror": Problem("mae", _value),
    "reg:gamma": Problem("gamma-nloglik", _positive),
    "reg:linear": Problem("rmse", _value),
    "reg:logistic": Problem("logloss", lambda s, _: 1.0 / (1.0 + np.exp(-s))),
    "reg:pseudohubererror": Problem("mphe", _value, {"huber_slope": 1.5}),
    "reg:quantileerror": Problem("quantile", _value, {"quantile_alpha": [0.2, 0.5, 0.9]}),
    "reg:squarederror": Problem("rmse", _value),
    "reg:squaredlogerror": Problem("rmsle", _positive),
    "reg:tweedie": Problem("tweedie-nloglik@1.3", _positive, {"tweedie_variance_power": 1.3}),
    "survival:aft": Problem("aft-nloglik", _positive),
    "survival:cox": Problem("cox-nloglik", lambda s, random: _positive(-s, random) * random.choice([1, 1, -1], len(s))),
}


def rows(objective: str = "binary:logistic", seed: int = 0, count: int = 400, **options: Any) -> xgboost.DMatrix:
    """Features (count, 6) and labels of the objective's problem; censored times know a half of their bounds."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 6))
    labels = np.asarray(PROBLEMS[objective].labels(_signal(x, random), random), np.float32)
    if objective == "survival:aft":
        kind = random.integers(4, size=count)  # exact, an interval, censored on the right, on the left
        low = np.where(kind == 3, 0.0, labels)
        high = np.choose(kind, [labels, 1.5 * labels, np.inf, labels])
        return xgboost.DMatrix(x, label_lower_bound=low, label_upper_bound=high, **options)
    if objective.startswith("rank:"):
        options["qid"] = np.repeat(np.arange(count // QUERY), QUERY)
    return xgboost.DMatrix(x, labels, **options)


def params(objective: str, **more: Any) -> dict[str, Any]:
    """Parameters of a training on `rows(objective)`."""
    problem = PROBLEMS[objective]
    base = {"objective": objective, "max_depth": 3, "eta": 0.5, "nthread": 1, "eval_metric": problem.metric}
    return base | problem.params | more


def score(booster: xgboost.Booster, data: xgboost.DMatrix) -> float:
    """The booster's metric on the rows, as XGBoost reports it."""
    return float(booster.eval(data).split(":")[-1])
