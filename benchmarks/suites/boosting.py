"""Boosted trees as a problem that a plain loop trains, one tree a step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.suites.problem import Problem, Split, auc
from datamodules.adult import Arrays
from models import BoostedTrees

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
