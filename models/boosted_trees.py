"""BoostedTrees: XGBoost as a LightningModule, one tree an optimizer step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.binary import BinaryClassifier
from models.boosting_optimizer import Margins
from models.tree_ensemble import RESERVED, Ensemble
from models.xgboost_ranks import XGBoostRanks


class BoostedTrees(BinaryClassifier):
    """Classifies rows in two classes by XGBoost, one tree an optimizer step.

    Its only parameter is the training rows' margins; `models.Boosting` is its optimizer. The training rows are the
    data module's `arrays("train")`, all at once: a training batch triggers a tree, and its content is not read.
    Checkpoints hold the booster in XGBoost's own format, as a uint8 tensor; `booster` is the XGBoost model itself.

    On several ranks (DDP) each rank has a part of the rows, and XGBoost sums over them. All ranks grow the same trees,
    which differ from those of one process by rounding and by the cut points, which XGBoost merges. Every rank has all
    margins and their gradient, so that a schedule sees those of one process.

    Args:
        n_estimators: number of trees, where the Trainer has no `max_steps`.
        max_depth: of a tree.
        base_score: probability before the first tree; None for the share of positives in the training rows.
        params: other parameters of XGBoost, such as {"subsample": 0.8}.
        seed: of XGBoost's sampling.
    """

    labels: Tensor

    def __init__(
        self,
        n_estimators: int = 100,
        max_depth: int = 6,
        base_score: float | None = None,
        params: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if n_estimators < 1:
            raise ValueError(f"n_estimators={n_estimators}: give 1 or more")
        if base_score is not None and not 0.0 < base_score < 1.0:
            raise ValueError(f"base_score={base_score}: a probability between 0 and 1, or None")
        if reserved := RESERVED & set(params or {}):
            raise ValueError(f"params={params}: {', '.join(sorted(reserved))} is an argument or fixed; leave it out")
        self.n_estimators = n_estimators
        self.base_score = base_score
        # By iteration, so that a resumed run samples the same rows.
        fixed = {"max_depth": max_depth, "seed": seed, "seed_per_iteration": True}
        self.params = fixed | {"tree_method": "hist"} | (params or {})
        self.margins = Margins(torch.empty(0))  # an optimizer is made before the data is known
        self.register_buffer("labels", torch.empty(0), persistent=False)

    @property
    def booster(self) -> Any:
        """The `xgboost.Booster`.

        Raises:
            RuntimeError: before training, or loading.
        """
        return self._ensemble().booster

    def setup(self, stage: str) -> None:
        """On fit, takes the training rows and starts an ensemble, or continues a loaded one."""
        if stage != "fit":
            return
        datamodule = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "arrays"):
            raise ValueError(
                f"datamodule={type(datamodule).__name__}: BoostedTrees needs one with arrays('train'), such as "
                "datamodules.AdultDataModule"
            )
        if self.trainer.max_steps == -1:
            self.trainer.fit_loop.epoch_loop.max_steps = self.n_estimators
        if self.trainer.world_size > 1:
            self.margins.ranks = XGBoostRanks(self.trainer)
        self.attach(*datamodule.arrays("train"))

    def teardown(self, stage: str) -> None:
        """Disconnects from the other ranks."""
        if stage == "fit" and self.margins.ranks is not None:
            self.margins.ranks.leave()
            self.margins.ranks = None

    def attach(self, features: np.ndarray, labels: np.ndarray, names: list[str], types: list[str]) -> None:
        """Takes the training rows: features (N, F) with NaN where missing, labels (N,) in {0, 1}.

        Raises:
            ValueError: for another label, or none, or rows of one class only without a `base_score`.
        """
        positives = float(labels.mean()) if len(labels) else 0.0
        if not len(labels) or not np.isin(labels, (0, 1)).all():
            raise ValueError(f"labels of {len(labels)} training rows: give one row or more, each labelled 0 or 1")
        score = positives if self.base_score is None else self.base_score
        if not 0.0 < score < 1.0:
            raise ValueError(f"all training labels are {positives:.0f}: give base_score, or rows of both classes")
        if self.margins.ensemble is None:
            self.margins.ensemble = self._make(base_score=score)
        self._resize(len(labels))
        own = self.margins.own
        self.margins.ensemble.attach(features[own], labels[own], names, types)
        self.labels = torch.from_numpy(labels).to(self.device)
        if self.margins.ensemble.rounds:
            self.margins.data.copy_(self.margins.whole(torch.from_numpy(self.margins.ensemble.fitted())))
        else:
            self.margins.data.fill_(math.log(score / (1.0 - score)))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Maps numbers (B, N) and codes (B, C) to margins (B,)."""
        codes = categories.to(numbers.dtype).masked_fill(categories == 0, float("nan"))
        features = torch.cat([numbers, codes], dim=1).cpu().numpy()
        return torch.from_numpy(self._ensemble().margins(features)).to(numbers.device)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Computes the mean cross entropy of all training rows; on several ranks, its mean over the ranks is that."""
        own, ranks = self.margins.own, self.trainer.world_size
        total = F.binary_cross_entropy_with_logits(self.margins[own], self.labels[own], reduction="sum")
        loss = total * (ranks / len(self.labels))
        self.log("train/loss", loss, prog_bar=True, sync_dist=ranks > 1, batch_size=len(self.labels))
        return loss

    def get_extra_state(self) -> Tensor:
        """Returns the booster as a uint8 tensor, empty before training."""
        ensemble = self.margins.ensemble
        return torch.empty(0, dtype=torch.uint8) if ensemble is None else ensemble.to_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Restores a stored booster, on the same training rows."""
        if not state.numel():
            return
        raw = state.cpu().numpy().tobytes()
        if self.margins.ensemble is None:
            self.margins.ensemble = self._make(raw=raw)
        else:
            self.margins.ensemble.load(raw)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        stored = state_dict.get(f"{prefix}margins")
        if stored is not None and len(self.labels) and len(stored) != len(self.labels):
            raise ValueError(
                f"the checkpoint was trained on {len(stored)} rows, the data has {len(self.labels)}: resume with "
                "the same data and the same split"
            )
        if stored is not None:
            self._resize(len(stored))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _resize(self, rows: int) -> None:
        """In place: the optimizer holds this very parameter."""
        if len(self.margins) != rows:
            self.margins.data = torch.zeros(rows, device=self.margins.device)
            self.margins.grad = None

    def _make(self, **kwargs: Any) -> Ensemble:
        return Ensemble(self.params | {"nthread": torch.get_num_threads()}, **kwargs)

    def _ensemble(self) -> Ensemble:
        if self.margins.ensemble is None:
            raise RuntimeError("BoostedTrees has no trees yet: fit it, or load a checkpoint")
        return self.margins.ensemble
