"""TextClassifier: classification of, and regression on, one or two sentences (GLUE)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)
from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef, SpearmanCorrCoef

from models.lora import LoRA, adapt
from models.transformer import TransformerModule

METRICS = ("accuracy", "f1", "matthews", "pearson", "spearman", "mse")
"""Names of metrics that `TextClassifier` takes; the last three are for regression."""


class TextClassifier(TransformerModule):
    """Fine-tunes any network of transformers' AutoModelForSequenceClassification, such as BERT or GPT-2.

    With one label it is a regression with squared error, otherwise a classification with cross entropy. It logs
    `train/loss`, `val/loss` and each metric as `val/<metric>`; those of a second validation split as
    `val_<its name>/<metric>`; and the same with `test`.

    Args:
        path: hub id or folder of the network's config and weights.
        pretrained: whether to load the weights rather than initialise fresh ones.
        overrides: values of the config to change, such as {"num_hidden_layers": 2}.
        num_labels: number of classes, or 1 for a regression; None for the data module's: a head of another number is
            replaced by a fresh one.
        metrics: names out of `METRICS`; None for the data module's. `f1` with two classes is that of class 1.
        lora: adapters to train in place of the network's body; None to train all of it.

    Raises:
        ValueError: for an unknown metric, adapters that do not go with the network, and as `TransformerModule`.
        ImportError: for adapters without `peft`.
        FileNotFoundError, ConnectionError: as `TransformerModule`.
    """

    head: ClassVar[str] = "AutoModelForSequenceClassification"

    def __init__(
        self,
        path: str = "google-bert/bert-base-uncased",
        pretrained: bool = True,
        overrides: dict[str, Any] | None = None,
        num_labels: int | None = None,
        metrics: Sequence[str] | None = None,
        lora: LoRA | dict[str, Any] | None = None,
    ) -> None:
        unknown = sorted(set(metrics or ()) - set(METRICS))
        if unknown:
            raise ValueError(f"metrics={unknown}: choose of {', '.join(METRICS)}")
        super().__init__(path, pretrained, overrides, **({} if num_labels is None else {"num_labels": num_labels}))
        if lora is not None:
            chosen = lora if isinstance(lora, LoRA) else LoRA(**lora)
            adapt(self.network, chosen)
            lora = asdict(chosen)  # a checkpoint is read without unpickling
        self.save_hyperparameters()
        self.num_labels = num_labels
        self.metric_names = metrics
        self.metrics, self.losses = nn.ModuleDict(), nn.ModuleDict()

    def setup(self, stage: str) -> None:
        """Takes labels and metrics that were not given from the data module, and makes the metrics of each split."""
        super().setup(stage)
        self.resize(self.num_labels or getattr(self.data, "num_labels", self.network.config.num_labels))
        names = self.metric_names or getattr(self.data, "metrics", None)
        names = names or (("mse",) if self.network.config.num_labels == 1 else ("accuracy",))
        for kind in _EVALUATED.get(stage, ()):
            splits = self.data.evaluation_names(kind) if hasattr(self.data, "evaluation_names") else [""]
            for i, split in enumerate(splits):
                prefix = f"{kind}_{split}/" if split else f"{kind}/"
                chosen = {name: make_metric(name, self.network.config.num_labels) for name in names}
                self.metrics[f"{kind}_metrics_{i}"] = MetricCollection(chosen, prefix=prefix)
                self.losses[f"{kind}_loss_{i}"] = MeanMetric()  # Lightning's mean over ranks rounds the samples

    def resize(self, num_labels: int) -> None:
        """Changes the head's number of outputs, with fresh weights.

        The parameters stay the same objects, as the CLI's optimizer holds them before the data module is known.

        Args:
            num_labels: number of classes, or 1 for a regression.
        """
        config = self.network.config
        if num_labels == config.num_labels:
            return
        config.num_labels = num_labels
        with torch.device("meta"):  # shapes without memory
            resized = type(self.network)(config)
        shapes = {name: parameter.shape for name, parameter in resized.named_parameters()}  # adapters are not there
        for name, parameter in self.network.named_parameters():
            shape = shapes.get(name, parameter.shape)
            if parameter.shape != shape:
                new = parameter.new_zeros(shape)
                parameter.data = new if new.ndim == 1 else new.normal_(std=config.initializer_range)
                self.network.get_submodule(name.rpartition(".")[0]).out_features = num_labels

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the number of labels, which the data may have set."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["num_labels"] = self.network.config.num_labels

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the number of labels."""
        super().on_load_checkpoint(checkpoint)
        self.resize(checkpoint["num_labels"])

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Computes logits (B, classes) of a tokenised batch, or values (B,) of a regression."""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        logits: Tensor = self.network(**inputs).logits
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        loss = self._loss(self(batch), batch["labels"])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs loss and metrics of a validation split."""
        self._evaluate("val", batch, dataloader_idx)

    def test_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Logs loss and metrics of a test split."""
        self._evaluate("test", batch, dataloader_idx)

    def predict_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Predicts probabilities (B, classes), or values (B,) of a regression."""
        outputs = self(batch)
        return outputs if outputs.ndim == 1 else outputs.softmax(-1)

    def _loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.mse_loss(outputs, labels.to(outputs)) if outputs.ndim == 1 else F.cross_entropy(outputs, labels)

    def _evaluate(self, kind: str, batch: dict[str, Tensor], index: int) -> None:
        outputs = self(batch)
        metrics, mean = self.metrics[f"{kind}_metrics_{index}"], self.losses[f"{kind}_loss_{index}"]
        mean.update(self._loss(outputs, batch["labels"]), weight=len(outputs))
        metrics.update(outputs.float() if outputs.ndim == 1 else outputs.argmax(-1), batch["labels"])
        settings: dict[str, Any] = {"prog_bar": True, "add_dataloader_idx": False, "batch_size": len(outputs)}
        self.log(f"{metrics.prefix}loss", mean, **settings)
        self.log_dict(metrics, **settings)


_EVALUATED = {"fit": ("val",), "validate": ("val",), "test": ("test",)}


def make_metric(name: str, num_labels: int) -> Metric:
    """Makes a metric on (predicted classes or values (N,), labels (N,)).

    Args:
        name: out of `METRICS`.
        num_labels: number of classes, or 1 for a regression.

    Raises:
        ValueError: for a metric of classification with a regression, or the other way round.
    """
    of_regression = name in ("pearson", "spearman", "mse")
    if of_regression != (num_labels == 1):
        kind = "a regression" if num_labels == 1 else f"{num_labels} classes"
        raise ValueError(f"metrics={name!r} with {kind}: choose another, or num_labels")
    if name == "f1":
        return BinaryF1Score() if num_labels == 2 else MulticlassF1Score(num_labels)
    if name == "accuracy":
        return MulticlassAccuracy(num_labels, average="micro")
    if name == "matthews":
        return MulticlassMatthewsCorrCoef(num_labels)
    return {"pearson": PearsonCorrCoef, "spearman": SpearmanCorrCoef, "mse": MeanSquaredError}[name]()
