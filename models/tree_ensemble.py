"""Ensemble: an XGBoost ensemble that is grown tree by tree from gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

RESERVED = {"objective", "base_score", "learning_rate", "eta", "max_depth", "num_parallel_tree", "seed"}
"""XGBoost's parameters that have an argument of their own, or that would break the arithmetic."""


class Ensemble:
    """Grows an XGBoost ensemble, one tree at a time, or one for each of K classes.

    Args:
        params: of XGBoost, without `objective`.
        base_score: what an empty ensemble predicts: for two classes a probability, in (0, 1).
        raw: stored booster to continue, in XGBoost's UBJSON.
        objective: XGBoost's name for it; it says what the margins are, and the gradient is the caller's.

    Attributes:
        booster: the `xgboost.Booster`.
        rounds: number of trees.
    """

    def __init__(
        self,
        params: dict[str, Any],
        base_score: float = 0.5,
        raw: bytes | None = None,
        objective: str = "binary:logistic",
    ) -> None:
        import xgboost  # late: only who boosts needs it

        from models.xgboost_booster import GrowingBooster

        self._xgboost, self._make = xgboost, GrowingBooster
        self.params = params | {"objective": objective}
        self.base_score = base_score
        self._train: Any = None
        self._start(raw)

    def _start(self, raw: bytes | bytearray | None) -> None:
        rows = [] if self._train is None else [self._train]  # XGBoost caches their margins
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
        """Sets the training rows: features (N, F), NaN where missing; labels (N,)."""
        self._train = self._xgboost.DMatrix(
            features, labels, feature_names=names, feature_types=types, enable_categorical=True
        )
        self._start(self.booster.save_raw("ubj") if self.rounds else None)

    def load(self, raw: bytes) -> None:
        """Continues a stored booster, on the same training rows."""
        self._start(raw)

    def fitted(self) -> np.ndarray:
        """Returns the margins of the training rows, (N,) or (N, K), which XGBoost keeps up to date."""
        margins: np.ndarray = self.booster.predict(self._train, output_margin=True, validate_features=False)
        return margins

    def grow(self, gradient: np.ndarray, hessian: np.ndarray, rate: float) -> np.ndarray:
        """Grows one tree, and returns the training rows' margins after it: margins + rate * tree.

        Args:
            gradient: (N,) or (N, K), of the sum of the rows' losses with respect to their margins.
            hessian: its derivative, likewise.
            rate: shrinkage of this tree.

        Raises:
            RuntimeError: before `attach`.
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
        """Predicts margins (N,) or (N, K) from features (N, F), NaN where missing."""
        names, types = self.booster.feature_names, self.booster.feature_types
        rows = self._xgboost.DMatrix(features, feature_names=names, feature_types=types, enable_categorical=True)
        margins: np.ndarray = self.booster.predict(rows, output_margin=True)
        return margins

    def to_tensor(self) -> Tensor:
        """Stores the booster as a uint8 tensor, in XGBoost's UBJSON."""
        return torch.frombuffer(self.booster.save_raw("ubj"), dtype=torch.uint8).clone()
