"""An XGBoost booster for many rounds on the same rows; in a module of its own, as only who boosts needs XGBoost."""

from __future__ import annotations

from xgboost import Booster, DMatrix


class GrowingBooster(Booster):
    """Compares its features' names with those of a matrix when it changes, not at each round: a sixth of a round."""

    _compared: int | None = None

    def _assign_dmatrix_features(self, data: DMatrix) -> None:
        if self._compared != id(data):  # an ensemble keeps its rows as long as its booster
            super()._assign_dmatrix_features(data)
            self._compared = id(data)
