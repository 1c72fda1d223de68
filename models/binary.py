"""BinaryClassifier: evaluation and metrics of binary classifiers on tables."""

from __future__ import annotations

from abc import abstractmethod

import lightning as L
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC, BinaryF1Score, BinaryPrecision, BinaryRecall

TabularBatch = tuple[Tensor, Tensor, Tensor]
"""Numbers (B, N) float32 with NaN where missing, category codes (B, C) int64, labels (B,) float32 in {0, 1}."""


class BinaryClassifier(L.LightningModule):
    """Evaluates margins (log-odds) on tables, and logs loss, accuracy, precision, recall, F1 and AUC.

    Accuracy, precision, recall and F1 are at a probability of 0.5; AUC is exact, over all thresholds. A subclass gives
    `forward`, the margins of a batch, and trains.
    """

    def __init__(self) -> None:
        super().__init__()
        metrics = {
            "accuracy": BinaryAccuracy(),
            "precision": BinaryPrecision(),
            "recall": BinaryRecall(),
            "f1": BinaryF1Score(),
            "auc": BinaryAUROC(),
        }
        self.metrics = nn.ModuleDict(
            {f"{s}_metrics": MetricCollection(metrics, prefix=f"{s}/") for s in ("val", "test")}
        )
        # Lightning's own mean over ranks rounds the number of samples.
        self.losses = nn.ModuleDict({f"{split}_loss": MeanMetric() for split in ("val", "test")})

    @abstractmethod
    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Computes the margins, (B,), of numbers (B, N) and category codes (B, C)."""

    def validation_step(self, batch: TabularBatch, batch_idx: int) -> None:
        """Logs loss and metrics of the validation split."""
        self._evaluate("val", batch)

    def test_step(self, batch: TabularBatch, batch_idx: int) -> None:
        """Logs loss and metrics of the test split."""
        self._evaluate("test", batch)

    def predict_step(self, batch: TabularBatch, batch_idx: int) -> Tensor:
        """Predicts probabilities of the positive class, (B,)."""
        return self(batch[0], batch[1]).sigmoid()

    def _evaluate(self, split: str, batch: TabularBatch) -> None:
        numbers, categories, labels = batch
        margins = self(numbers, categories)
        mean, metrics = self.losses[f"{split}_loss"], self.metrics[f"{split}_metrics"]
        mean.update(F.binary_cross_entropy_with_logits(margins, labels), weight=len(labels))
        self.log(f"{split}/loss", mean, prog_bar=True, batch_size=len(labels))
        metrics.update(margins.sigmoid(), labels.long())
        self.log_dict(metrics, prog_bar=split == "test", batch_size=len(labels))
