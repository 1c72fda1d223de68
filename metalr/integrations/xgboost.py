"""MetaLRTrainingCallback: `MetaLR` in `xgboost.train` and in XGBoost's scikit-learn estimators.

Boosting is gradient descent on the vector of margins (Friedman 2001): the gradient is d loss / d margins, an update is
rate * tree. So to `MetaLR` the training rows' margins are a parameter, and XGBoost is the optimizer that moves it.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import xgboost
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core.boosting_frame import Frame, frame_of, newton_frame
from metalr.core.controller import MetaLR
from metalr.core.guards import DEFAULT_GUARDS, Guards
from metalr.core.lr_limits import LRLimits
from metalr.core.policy import BOOSTING_POLICIES, LRPolicy
from metalr.integrations.boosting_losses import LOSSES, ObjectiveLoss, Rows, read_rows

Loss = Callable[[Tensor, Tensor], Tensor]
"""Losses (N,) of the rows from their margins, (N,) or (N, K), and labels, (N,) or (N, K)."""

UNTRAINED = {
    "learning_rate": 0.0,
    "max_depth": 1,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
    "colsample_bylevel": 1.0,
    "colsample_bynode": 1.0,
}
"""Parameters of a round that estimates the intercept and leaves the margins there."""


class MetaLRTrainingCallback(xgboost.callback.TrainingCallback):
    """Sets the learning rate of each boosting round, for that round.

    Evaluation, early stopping and other callbacks see an ordinary training, and the model is the one that XGBoost grows
    at these rates. `xgboost.callback.LearningRateScheduler` acts one round late; beside this callback it is refused.

    All of XGBoost's objectives work, with weights, several targets, query groups and censored labels. With an objective
    of your own (`obj=`), the gradient is the one that it returns; the change of the loss is that gradient's integral
    along the margins' path, unless `loss` gives its value.

    Args:
        dtrain: not needed: the rows are those of the training. Accepted, and checked for labels.
        total_steps: rounds, `num_boost_round` or `n_estimators`; None for the anytime mode.
        policy: as for `MetaLR`; by default that of boosted trees where `total_steps` is given.
        guards: as for `MetaLR`.
        min_lr: smallest rate.
        max_lr: largest rate.
        loss: losses (N,) of the rows from margins (N,) or (N, K) and labels, by torch; None for the objective's own.
        monitor: name of one of the training's evaluation sets, "valid" of `evals=[(dvalid, "valid")]` or "validation_0"
            of scikit-learn's `eval_set`. A policy that reads a validation loss is given the objective's loss, or `loss`
            of its rows after each round, whatever `eval_metric` is.

    Attributes:
        meta_lr: the controller, from the first round on.
        rates: set so far, one a round.

    Raises:
        ValueError: before the first tree, for another booster than gbtree, trees that are updated in place of grown,
            rows without labels, or a built-in objective whose loss is not known; as soon as something else sets the
            rate; after the first round, for a monitor that is no evaluation set, or with an objective without a loss.
        RuntimeError: before the first tree, in distributed training and in `xgboost.cv`.

    Example:
        >>> import numpy, xgboost
        >>> from metalr.integrations.xgboost import MetaLRTrainingCallback
        >>> x = numpy.random.default_rng(0).normal(size=(200, 4))
        >>> dtrain = xgboost.DMatrix(x, x[:, 0] > 0.0)
        >>> callback = MetaLRTrainingCallback(total_steps=20)
        >>> params = {"objective": "binary:logistic", "learning_rate": 0.3}
        >>> booster = xgboost.train(params, dtrain, 20, callbacks=[callback])
        >>> len(callback.rates)
        20

        A copy, such as scikit-learn's `clone` makes, has the arguments and none of the training:

        >>> estimator = xgboost.XGBClassifier(n_estimators=20, callbacks=[MetaLRTrainingCallback(total_steps=20)])
        >>> len(estimator.fit(x, x[:, 0] > 0.0).callbacks[0].rates)
        20
    """

    def __init__(
        self,
        dtrain: xgboost.DMatrix | None = None,
        total_steps: int | None = None,
        policy: str | Path | LRPolicy = "default",
        guards: Guards = DEFAULT_GUARDS,
        min_lr: float | None = None,
        max_lr: float | None = None,
        loss: Loss | None = None,
        monitor: str | None = None,
    ) -> None:
        super().__init__()
        self._dtrain, self._loss, self._monitor = dtrain, loss, monitor
        self._total_steps, self._policy, self._guards = total_steps, policy, guards
        self._limits = LRLimits(min_lr, max_lr)
        self._boosting: _Boosting | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Returns the arguments alone: neither a training nor a DMatrix can be copied."""
        return self.__dict__ | {"_dtrain": None, "_boosting": None}

    @property
    def meta_lr(self) -> MetaLR:
        """The controller of the last training."""
        if self._boosting is None:
            raise AttributeError("meta_lr is made in the first round of a training")
        return self._boosting.meta_lr

    @property
    def rates(self) -> list[float]:
        """Rates of the last training so far, one a round."""
        return [] if self._boosting is None else self._boosting.rates

    def before_training(self, model: Any) -> Any:
        """Refuses what cannot be driven."""
        self._boosting = None
        if not isinstance(model, xgboost.Booster):
            raise RuntimeError("MetaLRTrainingCallback in xgboost.cv: its folds have a booster each; use xgboost.train")
        if xgboost.collective.is_distributed():
            raise RuntimeError("MetaLRTrainingCallback in distributed training sees this worker's rows alone")
        learner = _config(model)
        booster = learner["gradient_booster"]["name"]
        if booster != "gbtree":
            raise ValueError(f"booster={booster!r}: MetaLRTrainingCallback drives booster='gbtree' alone")
        updaters = [updater["name"] for updater in learner["gradient_booster"]["updater"]]
        if updaters and not any(name.startswith("grow_") for name in updaters):  # a saved process_type is "default"
            raise ValueError(f"updater={','.join(updaters)!r} grows no tree, so the callback has no rate to set")
        if self._dtrain is not None:
            read_rows(self._dtrain, learner["objective"])
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Steps into this round's `Booster.update`, which alone is given the rows and the objective."""
        vars(model)["update"] = lambda *args, **kwargs: self._update(model, *args, **kwargs)
        return False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Makes sure that the decision was taken."""
        if vars(model).pop("update", None) is not None:
            raise RuntimeError(f"xgboost {xgboost.__version__} trains without Booster.update: use xgboost.train of 3.2")
        return False

    def _evaluate(self, model: xgboost.Booster, evals: Any, *args: Any, **kwargs: Any) -> Any:
        """Gives the controller the loss of the monitored set, and evaluates as the training does."""
        del model.eval_set
        sets = {name: rows for rows, name in evals}
        if self._monitor is None or self._monitor not in sets:
            raise ValueError(
                f"monitor={self._monitor!r} is no evaluation set of this training: give its name, of evals= or "
                f"eval_set=; there {'are ' + ', '.join(sets) if sets else 'is none'}"
            )
        if self._boosting is not None and self.meta_lr.policy.reads_validation:
            self._boosting.validate(model, self._monitor, sets[self._monitor], _config(model)["objective"])
        return model.eval_set(evals, *args, **kwargs)

    def after_training(self, model: Any) -> Any:
        """Leaves the model with the rate that it was given, from which a training that goes on begins."""
        vars(model).pop("update", None)
        if self._boosting is not None:
            model.set_param({"learning_rate": self._boosting.meta_lr.base_lrs[0]})
        return model

    def _update(self, model: xgboost.Booster, dtrain: xgboost.DMatrix, iteration: int, fobj: Any = None) -> None:
        """Grows the round's trees, and steps into their evaluation, which alone is given the evaluation sets."""
        del model.update
        self._grow(model, dtrain, iteration, fobj)
        if self._monitor is not None:
            vars(model)["eval_set"] = lambda *args, **kwargs: self._evaluate(model, *args, **kwargs)

    def _grow(self, model: xgboost.Booster, dtrain: xgboost.DMatrix, iteration: int, fobj: Any) -> None:
        """Decides, sets the rate, and grows the round's trees."""
        if fobj is None:
            margins = _intercept(model, dtrain) if self._boosting is None else _margins(model, dtrain)
            boosting = self._boosting = self._boosting or self._begin(model, dtrain, margins)
            boosting.differentiate(margins)
            boosting.decide(model)
            model.update(dtrain, iteration)
            return
        if any(part.__module__ == "xgboost.objective" for part in type(fobj).__mro__):
            raise ValueError(f"obj={type(fobj).__name__} is an xgboost.objective: give a function of margins and rows")

        def observed(predicted: Any, rows: xgboost.DMatrix) -> Any:
            answer = fobj(predicted, rows)
            margins = torch.as_tensor(predicted).cpu().clone()
            gradient, hessian = (torch.as_tensor(part).to(margins).reshape(margins.shape) for part in answer)
            boosting = self._boosting or self._begin(model, dtrain, margins, newton_frame(margins, gradient, hessian))
            self._boosting = boosting
            boosting.follow(margins, gradient)
            boosting.decide(model)
            return answer

        model.update(dtrain, iteration, observed)

    def _begin(self, model: Any, dtrain: xgboost.DMatrix, start: Tensor, own: Frame | None = None) -> _Boosting:
        """Makes the controller at the margins of the start; `own` is the frame of an objective of one's own."""
        objective = _config(model)["objective"]
        rows = read_rows(dtrain, objective)
        loss = _loss_of(objective["name"], self._loss) if own is None or self._loss is not None else None
        frame = own or frame_of(objective["name"], rows.labels, start)
        # flat: margins of several outputs are no matrix of weights, whose structure the policy would read
        optimizer = _Margins([nn.Parameter(frame.place(start).flatten().clone())], {"lr": _rate(model)})
        meta_lr = MetaLR(
            optimizer,
            self._total_steps,
            self._policy,
            guards=self._guards,
            min_lr=self._limits.min_lr,
            max_lr=self._limits.max_lr,
        )
        if self._monitor is not None and not meta_lr.policy.reads_validation:
            warnings.warn(f"monitor={self._monitor!r} has no effect: the policy reads no validation loss", stacklevel=2)
        return _Boosting(meta_lr, frame, rows, loss)


class _Margins(Optimizer):
    """Stands for the booster in `MetaLR`: a rate, and margins that move when XGBoost grows a tree; it has no step."""

    lr_policies = BOOSTING_POLICIES


class _Boosting:
    """Holds one training: margins as the policy sees them, their gradient, the loss, and the rates."""

    def __init__(self, meta_lr: MetaLR, frame: Frame, rows: Rows, loss: ObjectiveLoss | None) -> None:
        self.meta_lr = meta_lr
        self.rates: list[float] = []
        self._frame, self._rows, self._loss = frame, rows, loss
        self._point: nn.Parameter = meta_lr.optimizer.param_groups[0]["params"][0]
        self._value = torch.zeros(())
        self._valid: tuple[xgboost.DMatrix, Rows] | None = None  # evaluation set, and its rows

    def differentiate(self, margins: Tensor) -> None:
        """Computes loss and gradient at these margins."""
        leaf = margins.clone().requires_grad_()
        value = self._mean_loss(leaf, self._rows)
        (gradient,) = torch.autograd.grad(value, leaf)
        self._move(margins, gradient)
        self._value = value.detach()

    def follow(self, margins: Tensor, gradient: Tensor) -> None:
        """Takes over the gradient of the rows' summed loss that an objective of one's own returns at these margins.

        Without a loss, its change is the gradient's integral along the straight path, by the trapezoidal rule: exact
        for a quadratic loss. The policy reads a loss up to a shift and a factor.
        """
        before, slope = self._point.detach().clone(), self._point.grad
        now = self._move(margins, gradient / len(margins))
        if self._loss is not None:
            self._value = self._mean_loss(margins, self._rows)
        elif slope is not None:
            self._value = self._value + 0.5 * ((slope + now) * (self._point.detach() - before)).sum()

    def validate(self, model: xgboost.Booster, name: str, matrix: xgboost.DMatrix, objective: dict[str, Any]) -> None:
        """Gives the controller the loss of an evaluation set."""
        if self._loss is None:
            raise ValueError("monitor= with an objective of your own (obj=): give its loss=, too")
        if self._valid is None or self._valid[0] is not matrix:
            self._valid = matrix, read_rows(matrix, objective, f"evaluation set {name!r}")
        self.meta_lr.validation(self._mean_loss(_margins(model, matrix, training=False), self._valid[1]))

    def _move(self, margins: Tensor, gradient: Tensor) -> Tensor:
        with torch.no_grad():
            self._point.copy_(self._frame.place(margins).flatten())
        self._point.grad = (gradient * self._frame.unit).flatten()
        return self._point.grad

    def decide(self, model: xgboost.Booster) -> None:
        """Sets the rate of the trees that come."""
        if self.rates and not math.isclose(_rate(model), self.rates[-1], rel_tol=1e-4):
            raise ValueError(
                f"learning_rate={_rate(model)} was set by something else: MetaLRTrainingCallback sets it; remove "
                "LearningRateScheduler or whatever does"
            )
        self.meta_lr.step(self._value)
        self.rates.append(self.meta_lr.last_lr[0])
        model.set_param({"learning_rate": self.rates[-1]})

    def _mean_loss(self, margins: Tensor, rows: Rows) -> Tensor:
        losses, weights = self._loss(margins, rows), rows.weights  # type: ignore[misc]
        if losses.shape[:1] != weights.shape[:1] or losses.ndim > 2:
            raise ValueError(f"loss= gave shape {tuple(losses.shape)}: give a loss for each of {len(weights)} rows")
        weights = weights if weights.ndim == losses.ndim else weights.reshape(len(weights), -1)
        return (weights * losses).sum()


def _loss_of(objective: str, given: Loss | None) -> ObjectiveLoss:
    if given is not None:
        return lambda margins, rows: given(margins, rows.labels)
    if objective not in LOSSES:
        raise ValueError(
            f"objective={objective!r}: give its loss=, a function of margins (N,) and labels (N,) to losses (N,), by "
            f"torch; known are {', '.join(LOSSES)}"
        )
    return LOSSES[objective]


def _config(model: xgboost.Booster) -> dict[str, Any]:
    learner: dict[str, Any] = json.loads(model.save_config())["learner"]
    return learner


def _rate(model: xgboost.Booster) -> float:
    return float(_config(model)["gradient_booster"]["tree_train_param"]["learning_rate"])


def _margins(model: xgboost.Booster, rows: xgboost.DMatrix, training: bool = True) -> Tensor:
    """Predicts the margins of the rows; XGBoost keeps those of the rows of its training and of `evals` up to date."""
    return torch.from_numpy(model.predict(rows, output_margin=True, training=training).copy())


def _intercept(model: xgboost.Booster, rows: xgboost.DMatrix) -> Tensor:
    """Returns the margins that the first tree starts from.

    XGBoost estimates the intercept inside of its first round, so a copy of the booster goes through one. That round
    draws from the random numbers which all boosters of a thread share; they are seeded anew.
    """
    if model.num_boosted_rounds():
        return _margins(model, rows)
    probe = model.copy()
    probe.set_param(UNTRAINED)
    probe.update(rows, 0)
    seed = int(_config(model)["generic_param"]["seed"])
    for number in (seed ^ 1, seed):
        model.set_param({"seed": number})
        model.save_config()  # applies it
    return _margins(probe, rows)
