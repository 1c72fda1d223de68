"""Boosted trees as a problem that a plain loop trains, one tree a step."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.suites.problem import Data, Problem, Split, accuracy, auc, explained, share_of_largest
from datamodules.adult import Arrays
from metalr.core.boosting_frame import frame_of
from metalr.meta.boosting_task import OBJECTIVES, Objective
from models import BoostedTrees
from models.boosting_optimizer import Margins
from models.tree_ensemble import Ensemble

ROWS = 4000
"""Training rows of a run."""


class BoostingProblem(Problem):
    """Boosts trees on `ROWS` rows that the seed chooses: all of them at each round.

    Args:
        arrays: training rows.
        val: held-out rows: numbers, codes and labels.
        depth: of a tree.
        seed: of the rows and of XGBoost's sampling.
        params: others of XGBoost.
    """

    def __init__(self, arrays: Arrays, val: Split, depth: int, seed: int, **params: Any) -> None:
        self.val = val
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(arrays.labels), generator=generator)[:ROWS].numpy()
        self.model = BoostedTrees(max_depth=depth, params={"max_bin": 64, **params}, seed=seed)
        self.model.attach(arrays.features[rows], arrays.labels[rows], arrays.names, arrays.types)

    def loss(self) -> Tensor:
        """Computes the loss of all training rows."""
        return self.criterion(self.model.margins, self.model.labels)

    def validate(self) -> tuple[Tensor, Tensor]:
        """Computes margins."""
        return self.model(*self.val.inputs), self.val.labels

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Computes the cross entropy, nats."""
        return F.binary_cross_entropy_with_logits(outputs, labels)

    def metric(self, outputs: Tensor, labels: Tensor) -> float:
        """Computes the AUC."""
        return auc(outputs, labels)

    def chance(self) -> float:
        """Gives the AUC of margins that are all the same."""
        return 0.5


class _ObjectiveMargins(Margins):
    """Holds margins of any of `OBJECTIVES`, (N,) or (N, K), where a policy of `xgboost.train`'s callback sees them.

    Attributes:
        labels: of the rows, (N,).
        objective: that the trees descend on.
        offset: of these from XGBoost's margins, in the shape of them.
    """

    labels: Tensor
    objective: Objective
    offset: Tensor

    @classmethod
    def of(cls, ensemble: Ensemble, objective: Objective, labels: Tensor) -> _ObjectiveMargins:
        """Makes those of an ensemble without a tree."""
        fitted = torch.from_numpy(ensemble.fitted())
        placed = frame_of(objective.name, labels, fitted).place(fitted)
        margins = cls(placed.clone())
        margins.ensemble, margins.labels, margins.objective = ensemble, labels, objective
        margins.offset = placed - fitted
        return margins

    def outputs(self) -> Tensor:
        """Returns XGBoost's margins."""
        return self - self.offset

    def hessian(self) -> Tensor:
        """Computes what XGBoost's own objective takes."""
        _, hessian = self.objective.derivatives(self.outputs().detach().view(1, -1), self.labels[None])
        return hessian.view_as(self)

    def whole(self, part: Tensor) -> Tensor:
        """Places XGBoost's margins of all rows."""
        return super().whole(part) + self.offset


class ObjectiveProblem(Problem):
    """Boosts trees on all training rows at each round, by one of meta-training's objectives.

    Args:
        objective: one of `OBJECTIVES`: "logistic", "softmax" or "squared".
        parts: rows of numbers, (N, F), and their labels: 0 and 1, the numbers of classes, or real ones of unit
            variance.
        depth: of a tree.
        seed: of XGBoost's sampling.
        params: others of XGBoost.
    """

    def __init__(self, objective: str, parts: Data, depth: int, seed: int, **params: Any) -> None:
        self.objective, self.val = OBJECTIVES[objective], parts.val
        (features,), labels = parts.train
        self.labels = labels.float()
        score = self.objective.base_score(self.labels[None])
        classes = int(labels.max()) + 1 if objective == "softmax" else 0
        own = {"max_depth": depth, "seed": seed, "tree_method": "hist", "nthread": 1, **params}
        ensemble = Ensemble(
            own | ({"num_class": classes} if classes else {}), float(score), objective=self.objective.name
        )
        columns = features.shape[1]
        ensemble.attach(features.numpy(), labels.numpy(), [f"x{i}" for i in range(columns)], ["q"] * columns)
        self.model = nn.ParameterDict({"margins": _ObjectiveMargins.of(ensemble, self.objective, self.labels)})

    @property
    def _margins(self) -> _ObjectiveMargins:
        return cast(_ObjectiveMargins, self.model["margins"])

    def loss(self) -> Tensor:
        """Computes the loss of all training rows."""
        return self.criterion(self._margins.outputs(), self.labels)

    def validate(self) -> tuple[Tensor, Tensor]:
        """Computes margins."""
        ensemble = cast(Ensemble, self._margins.ensemble)
        return torch.from_numpy(ensemble.margins(self.val.inputs[0].numpy())), self.val.labels.float()

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Computes the mean of the rows' losses."""
        return self.objective.losses(outputs.reshape(1, -1), labels[None]).mean()

    def metric(self, outputs: Tensor, labels: Tensor) -> float:
        """Computes the AUC of two classes, the accuracy of several, or the share of the variance that is explained."""
        if outputs.ndim == 2:
            return accuracy(outputs, labels)
        if self.objective is OBJECTIVES["logistic"]:
            return auc(outputs, labels)
        return explained(outputs, labels)

    def chance(self) -> float:
        """Computes the share of the most frequent class; of an AUC a half, and of what is explained nothing."""
        if self.objective is OBJECTIVES["softmax"]:
            return share_of_largest(self.val.labels)
        return 0.5 if self.objective is OBJECTIVES["logistic"] else 0.0
