"""ImageClassifier: trains any network on labelled images."""

from __future__ import annotations

import lightning as L
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy


class ImageClassifier(L.LightningModule):
    """Trains a network on (images, labels) with cross entropy, and logs loss, top-1 and top-5 accuracy.

    Labels are classes (B,); in training also probabilities (B, classes), as from mixup. It has no
    `configure_optimizers`: the CLI gives optimizer and schedule.

    Args:
        network: images (B, C, H, W) -> logits (B, classes).
        classes: number of classes.
        label_smoothing: of the training loss, in [0, 1).

    Raises:
        ValueError: for a label smoothing out of range; on fit, for data with another number of classes.
    """

    def __init__(self, network: nn.Module, classes: int = 10, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={label_smoothing}: must be in [0, 1)")
        self.network = network
        self.classes = classes
        self.label_smoothing = label_smoothing
        metrics = {"accuracy": MulticlassAccuracy(classes, average="micro")}
        if classes > 5:
            metrics["top5"] = MulticlassAccuracy(classes, top_k=5, average="micro")
        self.metrics = nn.ModuleDict(
            {f"{s}_metrics": MetricCollection(metrics, prefix=f"{s}/") for s in ("val", "test")}
        )
        # Lightning's own mean over ranks rounds the number of samples.
        self.losses = nn.ModuleDict({f"{split}_loss": MeanMetric() for split in ("val", "test")})

    def setup(self, stage: str) -> None:
        """Checks the data's number of classes, before its labels fail in the loss."""
        classes = getattr(getattr(self.trainer, "datamodule", None), "num_classes", self.classes)
        if classes != self.classes:
            raise ValueError(f"classes={self.classes}, and the data has {classes}: give model and network as many")

    def forward(self, images: Tensor) -> Tensor:
        """Computes the logits, (B, classes)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the cross entropy of a batch, nats."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels, label_smoothing=self.label_smoothing)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs loss and accuracies of the validation split."""
        self._evaluate("val", batch)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs loss and accuracies of the test split."""
        self._evaluate("test", batch)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Predicts probabilities, (B, classes)."""
        return self(batch[0]).softmax(-1)

    def _evaluate(self, split: str, batch: tuple[Tensor, Tensor]) -> None:
        images, labels = batch
        logits = self(images)
        mean, metrics = self.losses[f"{split}_loss"], self.metrics[f"{split}_metrics"]
        mean.update(F.cross_entropy(logits, labels), weight=len(labels))
        self.log(f"{split}/loss", mean, prog_bar=True)
        metrics.update(logits, labels)
        self.log_dict(metrics, prog_bar=True)
