"""Boosted trees as optimizees: gradient descent on the margins of the training rows (Friedman 2001), a tree a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metalr.core.boosting_frame import Frame, frame_of
from metalr.meta.task import InnerTraining, Measured, Optimizees, Task

_RATES_APART = 4.0
"""Largest factor between the rate set in an ensemble and that of its next tree."""


class Objective(NamedTuple):
    """Holds what trees descend on, as functions of labels (R, N) and of margins (R, N * outputs), row by row.

    Attributes:
        name: XGBoost's.
        base_score: maps labels to XGBoost's parameter, (R, 1).
        prior: maps it to the margins of no trees, (R, 1).
        losses: of the rows, (R, N), at least 0.
        derivatives: gradient and hessian of the rows' losses by their margins, (R, N * outputs) each.
    """

    name: str
    base_score: Callable[[Tensor], Tensor]
    prior: Callable[[Tensor], Tensor]
    losses: Callable[[Tensor, Tensor], Tensor]
    derivatives: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _mean(labels: Tensor) -> Tensor:
    return labels.mean(1, keepdim=True)


def _zero(labels: Tensor) -> Tensor:
    return torch.zeros(len(labels), 1)


def _as_it_is(score: Tensor) -> Tensor:
    return score


def _logistic_losses(margins: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(margins, labels, reduction="none")


def _logistic_derivatives(margins: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    probability = margins.sigmoid()
    return probability - labels, (probability * (1.0 - probability)).clamp_(min=1e-16)


def _softmax_losses(margins: Tensor, labels: Tensor) -> Tensor:
    logits = margins.view(*labels.shape, -1)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none").view_as(labels)


def _softmax_derivatives(margins: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Derives by each class alone, with twice the hessian, as XGBoost does."""
    probability = margins.view(*labels.shape, -1).softmax(2)
    gradient = probability - F.one_hot(labels.long(), probability.shape[2])
    return gradient.flatten(1), (2.0 * probability * (1.0 - probability)).clamp_(min=1e-16).flatten(1)


def _hinge_losses(margins: Tensor, labels: Tensor) -> Tensor:
    return (1.0 - (2.0 * labels - 1.0) * margins).relu()


def _hinge_derivatives(margins: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Derives with a hessian of 1 where there is a loss, as XGBoost does."""
    sign, lost = 2.0 * labels - 1.0, _hinge_losses(margins, labels) > 0.0
    return torch.where(lost, -sign, 0.0), lost.to(margins).clamp_(min=1e-16)


def _poisson_derivatives(margins: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Derives with the hessian that a step of XGBoost's `max_delta_step`, 0.7, leads to."""
    mean = margins.exp()
    return mean - labels, mean * math.exp(0.7)


def _huber_losses(margins: Tensor, labels: Tensor) -> Tensor:
    return (1.0 + (margins - labels).square()).sqrt() - 1.0


def _huber_derivatives(margins: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    error = margins - labels
    root = (1.0 + error.square()).sqrt()
    return error / root, root**-3


OBJECTIVES = {
    "logistic": Objective("binary:logistic", _mean, torch.logit, _logistic_losses, _logistic_derivatives),
    "softmax": Objective(
        "multi:softprob",
        _zero,
        _as_it_is,
        _softmax_losses,
        _softmax_derivatives,
    ),
    "squared": Objective(
        "reg:squarederror",
        _mean,
        _as_it_is,
        lambda margins, labels: 0.5 * (margins - labels).square(),
        lambda margins, labels: (margins - labels, torch.ones_like(margins)),
    ),
    "hinge": Objective(
        "binary:hinge",
        _zero,
        _as_it_is,
        _hinge_losses,
        _hinge_derivatives,
    ),
    "poisson": Objective(
        "count:poisson",
        _mean,
        torch.log,
        lambda margins, labels: margins.exp() - labels * margins + torch.xlogy(labels, labels) - labels,
        _poisson_derivatives,
    ),
    "pseudo_huber": Objective("reg:pseudohubererror", _mean, _as_it_is, _huber_losses, _huber_derivatives),
}
"""Objectives by name: for labels in {0, 1} (logistic, hinge), classes, real ones (squared, pseudo-Huber) and counts."""


@dataclass(frozen=True)
class Table:
    """Holds rows of a classification or of a regression.

    Attributes:
        features: (N, F) float32, NaN where missing, codes from 0 in a column of categories.
        labels: (N,) float32, in {0, 1} and both of them there, the numbers of several classes, counts, or real.
        types: "q" for a column of numbers and "c" for one of categories, F of them.
    """

    features: np.ndarray
    labels: np.ndarray
    types: tuple[str, ...]

    @cached_property
    def matrix(self) -> Any:
        """The `xgboost.DMatrix`."""
        import xgboost  # late: only who boosts needs it

        return xgboost.DMatrix(
            self.features, self.labels, feature_types=list(self.types), enable_categorical=True, nthread=1
        )


@dataclass(frozen=True)
class BoostingTask(Task):
    """Describes P tables to boost trees on, with equal numbers of training rows and of validation rows.

    Attributes:
        train: training rows of each instance.
        valid: validation rows of each instance.
        params: XGBoost's parameters of each instance, without objective and rate.
        objective: a name out of `OBJECTIVES`.
        outputs: margins of a row, and trees of a step: the number of classes with "softmax", otherwise 1.
    """

    train: Sequence[Table]
    valid: Sequence[Table]
    params: Sequence[dict[str, Any]]
    objective: str = "logistic"
    outputs: int = 1

    def __len__(self) -> int:
        """Returns P."""
        return len(self.train)

    @property
    def device(self) -> torch.device:
        """The CPU, where trees grow."""
        return torch.device("cpu")

    def select(self, instances: slice | Tensor) -> BoostingTask:
        """Selects some of the instances, by a slice or by their numbers."""
        numbers = torch.arange(len(self))[instances].tolist()
        train, valid, params = ([part[i] for i in numbers] for part in (self.train, self.valid, self.params))
        return replace(self, train=train, valid=valid, params=params)

    def to(self, device: torch.device) -> BoostingTask:
        """Returns the task itself.

        Raises:
            ValueError: for a device other than the CPU.
        """
        if device.type != "cpu":
            raise ValueError(f"device={device}: boosted trees are meta-trained on the CPU; give accelerator: cpu")
        return self

    def start(self, inner: InnerTraining, copies: int, compiled: bool) -> Boosters:
        """Begins ensembles without a tree."""
        return Boosters(self, inner, copies)


class Boosters(Optimizees):
    """Grows R = copies * P ensembles side by side, each by its own rate.

    The policy sees the margins' gradient, the margins and the trees' outputs where it sees a network's gradient,
    parameters and directions, in the objective's frame (`metalr.core.boosting_frame`), as it does in an `xgboost.train`
    with its callback, and on log odds under `MetaLR` on the optimizer of boosted trees.

    Args:
        task: P instances.
        inner: the inner training.
        copies: ensembles for each instance.

    Attributes:
        margins: log-odds or values of the training rows, one or one a class, (R, N * outputs).
        direction: minus the last tree's outputs, or the last trees', in the frame's unit, (R, N * outputs).
        step: number of trees of each ensemble, or of each class in it.
    """

    def __init__(self, task: BoostingTask, inner: InnerTraining, copies: int) -> None:
        self._train, self._valid = [*task.train] * copies, [*task.valid] * copies
        self._params = [*task.params] * copies
        self._objective = OBJECTIVES[task.objective]
        self._labels, self._valid_labels = (
            torch.stack([torch.from_numpy(table.labels) for table in tables]) for tables in (self._train, self._valid)
        )
        half = 0 if inner.validation_interval is None else self._valid_labels.shape[1] // 2
        self._shown, self._scored = slice(None, half), slice(half, None)
        self.is_sgd = torch.tensor(False)
        self._outputs = task.outputs
        self.elements = torch.tensor(float(self._labels.shape[1] * task.outputs))
        self.initial_lr = inner.hyper.repeat(copies).lr[:, 0]
        self.weight_structure = torch.zeros_like(self.initial_lr)
        self.steps_per_epoch = torch.zeros_like(self.initial_lr)  # a round sees all rows
        self._base_score = self._objective.base_score(self._labels)
        self._prior = self._objective.prior(self._base_score)
        self.margins = self._prior.repeat(1, self._labels.shape[1] * task.outputs)
        self.direction = torch.zeros_like(self.margins)
        self.step = 0
        self._frame = self._frame_of_all()
        self._gradient, self._hessian = torch.zeros_like(self.margins), torch.ones_like(self.margins)
        self._sum = torch.zeros_like(self.margins)
        self._rates = torch.full_like(self.initial_lr, math.nan)
        self._boosters = [self._make(run) for run in range(len(self.margins))]

    def _make(self, run: int) -> Any:
        import xgboost

        tables = self._train[run], self._valid[run]
        fixed = {"objective": self._objective.name, "base_score": float(self._base_score[run]), "nthread": 1}
        if self._outputs > 1:
            fixed["num_class"] = self._outputs
        return xgboost.Booster(self._params[run] | fixed, [table.matrix for table in tables])

    def _frame_of_all(self) -> Frame:
        """Gathers the frames of the ensembles, which begin at the margins."""
        frames = [
            frame_of(self._objective.name, labels, margins)
            for labels, margins in zip(self._labels, self.margins, strict=True)
        ]
        units = torch.tensor([float(frame.unit) for frame in frames])[:, None]
        return Frame(self.margins, units, frames[0].distance)

    def measure(self) -> Measured:
        """Computes the gradient of the mean loss of all training rows, and what the policy reads of it."""
        frame = self._frame
        self._gradient, self._hessian = self._objective.derivatives(self.margins, self._labels)
        grad = self._gradient * (frame.unit / self._labels.shape[1])
        loss = self._objective.losses(self.margins, self._labels).mean(1)
        self._sum, travelled = self._sum + grad, (frame.start - self.margins) / frame.unit
        return Measured(
            loss=loss,
            grad_norm=grad.norm(dim=1),
            param_norm=frame.place(self.margins).norm(dim=1),
            direction_norm=self.direction.norm(dim=1),
            product=(grad * self.direction).sum(1),
            travel=travelled.norm(dim=1),
            origin_product=(grad * travelled).sum(1),
            sum_norm=self._sum.norm(dim=1),
            sum_absolute=self._sum.abs().sum(1),
        )

    @torch.no_grad()
    def update(self, lr: Tensor) -> None:
        """Grows a tree in each ensemble, by the gradient and the hessian of its rows' losses."""
        grown = torch.empty_like(self.margins)
        self._set_rates(lr)
        gradient = (lr / self._rates)[:, None] * self._gradient
        shape = self._labels.shape[1:] if self._outputs == 1 else (self._labels.shape[1], self._outputs)
        for run, (booster, table) in enumerate(zip(self._boosters, self._train, strict=True)):
            grad, hess = (part[run].view(shape).numpy() for part in (gradient, self._hessian))
            booster.boost(table.matrix, self.step, grad=grad, hess=hess)
            grown[run] = _margins(booster, table)
        self.direction = (self.margins - grown) / (lr[:, None] * self._frame.unit)
        self.margins = grown
        self.step += 1

    def _set_rates(self, lr: Tensor) -> None:
        """Sets the rate of those ensembles whose rate is more than `_RATES_APART` from the given one.

        A tree's outputs are its rate times -sum(gradient) / (sum(hessian) + lambda) of a leaf's rows, and the gain of
        every split is proportional to the square of the gradient: scaling the gradient has the same effect as scaling
        the rate, at the same splits. Setting the rate takes XGBoost as long as growing a small tree.
        """
        for run in (~((lr / self._rates).log().abs() < math.log(_RATES_APART))).nonzero()[:, 0].tolist():
            self._rates[run] = lr[run]
            self._boosters[run].set_param("learning_rate", float(lr[run]))

    def validate(self) -> Tensor:
        """Computes the mean loss of the validation rows that are not shown, (R,)."""
        return self._valid_losses()[:, self._scored].mean(1)

    def shown_validation(self) -> Tensor:
        """Computes the mean loss of those that are, (R,)."""
        return self._valid_losses()[:, self._shown].mean(1)

    def _valid_losses(self) -> Tensor:
        """Computes the losses of all validation rows, (R, N)."""
        if not self.step:
            margins = self._prior.expand(-1, self._valid_labels.shape[1] * self._outputs)
        else:
            pairs = zip(self._boosters, self._valid, strict=True)
            margins = torch.stack([_margins(booster, table) for booster, table in pairs])
        return self._objective.losses(margins, self._valid_labels)

    def state_dict(self) -> dict[str, Any]:
        """Returns the ensembles in XGBoost's own format, margins and directions."""
        grown = self._boosters if self.step else []
        trees = [torch.frombuffer(booster.save_raw("ubj"), dtype=torch.uint8).clone() for booster in grown]
        return {"step": self.step, "tensors": [self.margins, self.direction, self._sum], "trees": trees}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`; with `colsample_bytree`, later trees use other columns than without a restart."""
        self.step = int(state["step"])
        self.margins, self.direction, self._sum = state["tensors"]
        for run, trees in enumerate(state["trees"]):
            self._boosters[run].load_model(bytearray(trees.numpy().tobytes()))
            self._boosters[run].set_param(self._params[run] | {"nthread": 1})
        self._rates.fill_(math.nan)  # a stored ensemble has no rate


def _margins(booster: Any, table: Table) -> Tensor:
    """Predicts the margins of a table's rows, (N * outputs,); XGBoost caches those of a booster's own tables."""
    margins: np.ndarray = booster.predict(table.matrix, output_margin=True, validate_features=False)
    return torch.from_numpy(margins).flatten()
