"""MetaLRTrainingCallback: `MetaLR` in `xgboost.train`.

Boosting is gradient descent on the vector of margins (Friedman 2001): the gradient is d loss / d margins, an update is
rate * tree. So to `MetaLR` the training rows' margins are a parameter, and XGBoost is the optimizer that moves it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import xgboost
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core.controller import MetaLR
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.policy import BOOSTING_POLICIES, LRPolicy

Loss = Callable[[Tensor, Tensor], Tensor]
"""Losses (N,) of the rows from their margins, (N,) or (N, K), and labels (N,)."""


def _logistic(margins: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(margins, labels, reduction="none")


def _squared(margins: Tensor, labels: Tensor) -> Tensor:
    return 0.5 * (margins - labels.reshape(margins.shape)).square().reshape(len(margins), -1).sum(1)


def _softmax(margins: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(margins, labels.long(), reduction="none")


def _poisson(margins: Tensor, labels: Tensor) -> Tensor:
    return margins.exp() - labels * margins


LOSSES: dict[str, Loss] = {
    "binary:logistic": _logistic,
    "binary:logitraw": _logistic,
    "reg:logistic": _logistic,
    "reg:squarederror": _squared,
    "multi:softprob": _softmax,
    "multi:softmax": _softmax,
    "count:poisson": _poisson,
}
"""Losses of XGBoost's objectives, in XGBoost's own units of the margins."""


class _Boosting(Optimizer):
    """The booster as `MetaLR` sees it: a rate, and margins that move when XGBoost grows a tree; it has no step."""

    lr_policies = BOOSTING_POLICIES


class MetaLRTrainingCallback(xgboost.callback.TrainingCallback):
    """Sets the learning rate of each boosting round, for that round.

    In a training:

        callback = MetaLRTrainingCallback(dtrain, total_steps=200)
        booster = xgboost.train(params, dtrain, 200, evals=[(dvalid, "valid")], early_stopping_rounds=20,
                                callbacks=[callback])

    The rate is set in front of the round that it was decided for; `xgboost.callback.LearningRateScheduler` sets it
    behind, and so acts a round late. Evaluation, early stopping and other callbacks see an ordinary training.

    XGBoost estimates the intercept (`base_score`) inside the first round, where nobody can see the margins that the
    first tree starts from. So where none is given it is estimated here first, by a round of a copy of the booster, and
    set; the trained model is the same.

    Args:
        dtrain: the rows that `xgboost.train` is given, with labels, and weights if they have some.
        total_steps: rounds, `num_boost_round`; None for the anytime mode.
        policy: as for `MetaLR`; by default that of boosted trees where `total_steps` is given.
        guards: as for `MetaLR`.
        loss: losses (N,) of the rows from margins (N,) or (N, K) and labels (N,), by torch: for an objective that is
            not among `LOSSES`, or one of your own (`obj=`), which a callback is not told of.

    Attributes:
        meta_lr: the controller, from the start of the training on.
        rates: that were set, one a round.

    Raises:
        ValueError: at the start of the training, for an objective whose loss is not known, another booster than
            gbtree, or no labels.
        RuntimeError: likewise, in distributed training and in `xgboost.cv`.
    """

    meta_lr: MetaLR

    def __init__(
        self,
        dtrain: xgboost.DMatrix,
        total_steps: int | None = None,
        policy: str | Path | LRPolicy = "default",
        guards: Guards = DEFAULT_GUARDS,
        loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self._rows, self._loss = dtrain, loss
        self._total_steps, self._policy, self._guards = total_steps, policy, guards
        self.rates: list[float] = []

    def before_training(self, model: Any) -> Any:
        """Fixes the intercept, and makes the controller from the booster's own initial rate."""
        if not isinstance(model, xgboost.Booster):
            raise RuntimeError("MetaLRTrainingCallback in xgboost.cv: its folds have a booster each; use xgboost.train")
        if xgboost.collective.is_distributed():
            raise RuntimeError("MetaLRTrainingCallback in distributed training sees this worker's rows alone")
        config = json.loads(model.save_config())["learner"]
        trees = config["gradient_booster"]
        if trees["name"] != "gbtree":
            raise ValueError(f"booster={trees['name']!r}: MetaLRTrainingCallback drives booster='gbtree' alone")
        self._prepare_rows(config["objective"])
        if model.num_boosted_rounds() == 0 and config["learner_model_param"].get("boost_from_average") == "1":
            model.set_param("base_score", _intercept(model, self._rows))
        self.margins = nn.Parameter(self._predict(model))
        optimizer = _Boosting([self.margins], {"lr": float(trees["tree_train_param"]["learning_rate"])})
        self.meta_lr = MetaLR(optimizer, self._total_steps, self._policy, guards=self._guards)
        self.rates = []
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Reads margins and gradient of the trees so far, decides, and sets the rate of the tree that comes."""
        with torch.no_grad():
            self.margins.copy_(self._predict(model))
        self.margins.grad = None
        loss = (self._weights * self._row_losses(self.margins, self._labels)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        self.meta_lr.step(loss)
        self.rates.append(self.meta_lr.last_lr[0])
        model.set_param("learning_rate", self.rates[-1])
        return False

    def _predict(self, model: xgboost.Booster) -> Tensor:
        """Margins of the rows; XGBoost keeps those of its training rows up to date."""
        return torch.from_numpy(model.predict(self._rows, output_margin=True, training=True).copy())

    def _prepare_rows(self, objective: dict[str, Any]) -> None:
        """Labels, the loss, and weights that sum to 1."""
        self._row_losses = self._loss or _known_loss(objective["name"])
        self._labels = torch.from_numpy(self._rows.get_label().copy())
        if not len(self._labels):
            raise ValueError("dtrain has no labels: give the DMatrix that xgboost.train is given")
        weights = torch.from_numpy(self._rows.get_weight().copy())
        weights = weights if len(weights) else torch.ones(self._rows.num_row())
        positive = float(objective.get("reg_loss_param", {}).get("scale_pos_weight", 1.0))
        if positive != 1.0:
            weights = torch.where(self._labels == 1.0, weights * positive, weights)
        self._weights = weights / weights.sum()


def _known_loss(objective: str) -> Loss:
    if objective not in LOSSES:
        raise ValueError(
            f"objective={objective!r}: give its loss=, a function of margins (N,) and labels (N,) to losses (N,), by "
            f"torch; known are {', '.join(LOSSES)}"
        )
    return LOSSES[objective]


def _intercept(model: xgboost.Booster, rows: xgboost.DMatrix) -> str:
    """The base score that XGBoost's first round estimates, as it writes it."""
    probe = model.copy()
    probe.update(rows, 0)
    score: str = json.loads(probe.save_config())["learner"]["learner_model_param"]["base_score"]
    return score
