"""Gradient boosting as an optimizer: gradient descent in function space (Friedman 2001), by XGBoost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr.core.policy import BOOSTING_POLICIES
from models.boosting_ranks import BoostingRanks

RESERVED = {"objective", "base_score", "learning_rate", "eta", "max_depth", "num_parallel_tree", "seed"}
"""XGBoost's parameters that have an argument of their own, or that would break the arithmetic."""


class Ensemble:
    """An XGBoost booster of binary classification that grows by one tree at a time.

    Args:
        params: for XGBoost, beside `objective`.
        base_score: probability that an empty ensemble gives.
        raw: a stored booster to go on from, in XGBoost's UBJSON.

    Attributes:
        booster: the `xgboost.Booster`.
        rounds: number of trees.
    """

    def __init__(self, params: dict[str, Any], base_score: float = 0.5, raw: bytes | None = None) -> None:
        import xgboost  # late: only who boosts needs it

        from models.growing_booster import GrowingBooster

        self._xgboost, self._make = xgboost, GrowingBooster
        self.params = params | {"objective": "binary:logistic"}
        self.base_score = base_score
        self._train: Any = None
        self._start(raw)

    def _start(self, raw: bytes | bytearray | None) -> None:
        rows = [] if self._train is None else [self._train]  # XGBoost keeps the margins of rows that it knows
        self._rate = math.nan
        if raw is None:
            self.booster = self._make(self.params | {"base_score": self.base_score}, rows)
            self.rounds = 0
        else:
            self.booster = self._make(self.params, rows)  # base_score would override the model's own
            self.booster.load_model(bytearray(raw))
            self.booster.set_param(self.params)  # a stored model has the trees, not how to grow more
            self.rounds = int(self.booster.num_boosted_rounds())

    def attach(self, features: np.ndarray, labels: np.ndarray, names: list[str], types: list[str]) -> None:
        """The training rows: features (N, F), NaN where missing."""
        self._train = self._xgboost.DMatrix(
            features, labels, feature_names=names, feature_types=types, enable_categorical=True
        )
        self._start(self.booster.save_raw("ubj") if self.rounds else None)

    def load(self, raw: bytes) -> None:
        """Goes on from a stored booster; the training rows, where there are any, stay."""
        self._start(raw)

    def fitted(self) -> np.ndarray:
        """Margins (N,) of the training rows; XGBoost keeps them up to date as it grows."""
        margins: np.ndarray = self.booster.predict(self._train, output_margin=True, validate_features=False)
        return margins

    def grow(self, gradient: np.ndarray, hessian: np.ndarray, rate: float) -> np.ndarray:
        """One more tree: margins (N,) += rate * tree.

        Args:
            gradient: (N,), of the sum of the rows' losses with respect to their margins.
            hessian: (N,), its derivative.
            rate: shrinkage of this tree.
        """
        if self._train is None:
            raise RuntimeError("grow() before attach(): there are no rows to fit a tree to")
        if rate != self._rate:
            self.booster.set_param("learning_rate", rate)
            self._rate = rate
        self.booster.boost(self._train, self.rounds, grad=gradient, hess=hessian)
        self.rounds += 1
        return self.fitted()

    def margins(self, features: np.ndarray) -> np.ndarray:
        """(N, F), NaN where missing -> (N,)."""
        names, types = self.booster.feature_names, self.booster.feature_types
        rows = self._xgboost.DMatrix(features, feature_names=names, feature_types=types, enable_categorical=True)
        margins: np.ndarray = self.booster.predict(rows, output_margin=True)
        return margins

    def to_tensor(self) -> Tensor:
        """The booster in XGBoost's UBJSON, uint8."""
        return torch.frombuffer(self.booster.save_raw("ubj"), dtype=torch.uint8).clone()


class Margins(nn.Parameter):
    """Log-odds (N,) of the training rows: the parameter that boosting descends on, beside its ensemble.

    Attributes:
        ensemble: that grows; of this rank's rows, where there are several.
        ranks: that share the rows; None for one process.
    """

    ensemble: Ensemble | None = None
    ranks: BoostingRanks | None = None

    @property
    def own(self) -> slice:
        """The rows of the ensemble: this rank's, where there are several."""
        return slice(None) if self.ranks is None else self.ranks.own(self.numel())

    def whole(self, part: Tensor) -> Tensor:
        """Margins of all rows, from those of the ensemble's."""
        return part if self.ranks is None else self.ranks.whole(part.to(self.device), self.numel())


class Boosting(Optimizer):
    """Grows one tree a step, with the group's "lr" as its shrinkage.

    A step moves the margins by lr times the tree that best fits, to second order, the gradient that `backward()`
    left on them: margins <- margins + lr * tree(gradient, hessian), with logistic loss's hessian p (1 - p). Any
    torch scheduler, LearningRateMonitor and MetaLRCallback see an optimizer like every other.

    Args:
        params: `Margins`, with the gradient of the mean loss of their rows.
        lr: shrinkage, above 0.

    Attributes:
        lr_policies: names of the shipped policies that `MetaLR` takes for it, with a known horizon and without.
    """

    lr_policies = BOOSTING_POLICIES

    def __init__(self, params: Iterable[Margins], lr: float = 0.1) -> None:
        if not 0.0 < lr < float("inf"):
            raise ValueError(f"lr={lr}: give a finite rate above 0; 0.1 is usual")
        super().__init__(params, {"lr": lr})
        for _, parameter in self._margins():
            if not isinstance(parameter, Margins):
                raise ValueError("params: Boosting grows trees on the Margins of models.BoostedTrees alone")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Grows the next tree; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for rate, margins in self._margins():
            if margins.grad is None:
                continue
            if margins.ensemble is None:
                raise RuntimeError("Boosting.step() before the model's setup: its margins have no ensemble yet")
            probability = margins[margins.own].sigmoid()
            hessian = (probability * (1.0 - probability)).clamp_(min=1e-16)  # as XGBoost's own objective does
            gradient = margins.grad[margins.own] * margins.numel()  # of the sum: XGBoost's regularisation counts rows
            grown = margins.ensemble.grow(gradient.cpu().numpy(), hessian.cpu().numpy(), rate)
            margins.copy_(margins.whole(torch.from_numpy(grown)))
        return loss

    def _margins(self) -> list[tuple[float, Margins]]:
        return [(float(group["lr"]), p) for group in self.param_groups for p in group["params"]]
