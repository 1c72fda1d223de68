"""What a suite trains: a model with its data as one problem that a plain loop trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc


def data_folder(root: str | None, name: str, hub_id: str) -> str:
    """Names a data set: its folder below the root of the real data, or its id on the hub where there is no root."""
    return hub_id if root is None else str(Path(root) / name)


class Split(NamedTuple):
    """Holds the rows of a data set.

    Attributes:
        inputs: what the network takes, each (N, ...).
        labels: (N,), or (N, L) where each position has one.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor

    def rows(self, chosen: Tensor | slice) -> Split:
        """Selects some of the rows."""
        return Split(tuple(tensor[chosen] for tensor in self.inputs), self.labels[chosen])


class Data(NamedTuple):
    """Holds a training part, and the fixed rows held out of it that every run is evaluated on."""

    train: Split
    val: Split


class Problem(ABC):
    """Holds one run's model and data; all runs of a task and a seed have the same weights, batches and dropout masks.

    Attributes:
        model: what is trained.
        has_batch_norm: whether it has batch norm.
        steps_per_epoch: batches of the training data; None where a step sees all of it.
    """

    model: nn.Module
    has_batch_norm: bool = False
    steps_per_epoch: int | None = None

    @abstractmethod
    def loss(self) -> Tensor:
        """Computes the loss of the next batch, a scalar."""

    @abstractmethod
    def validate(self) -> tuple[Tensor, Tensor]:
        """Computes outputs and labels of the held-out rows."""

    @abstractmethod
    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Computes the mean loss, a scalar."""

    @abstractmethod
    def metric(self, outputs: Tensor, labels: Tensor) -> float:
        """Computes the metric, in [0, 1], the higher the better."""

    @abstractmethod
    def chance(self) -> float:
        """Computes the metric of the best answer that is the same for all held-out rows."""

    def recalibrate(self) -> None:  # noqa: B027 - most have nothing to
        """Measures batch norm's statistics at the weights that are there now."""

    def val_loss(self) -> float:
        """Computes the loss on the held-out rows."""
        with torch.no_grad():
            return float(self.criterion(*self.validate()))

    def val_metric(self) -> float:
        """Computes the metric on the held-out rows; outputs that are not numbers count as zero."""
        with torch.no_grad():
            outputs, labels = self.validate()
            return self.metric(outputs.nan_to_num(), labels)


class NetworkProblem(Problem):
    """Trains a network by cross entropy, over classes or of one binary margin.

    Args:
        build: makes the network.
        parts: its data.
        batch_size: rows.
        seed: of the weights, the batches and dropout.
    """

    def __init__(self, build: Callable[[], nn.Module], parts: Data, batch_size: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = build()
        self.train, self.val = parts
        self.binary = self.val.labels.is_floating_point()
        self.batch_size = batch_size
        self.steps_per_epoch = len(self.train.labels) // batch_size
        self.batches = self._shuffled(seed)
        self.calibration = self._shuffled(seed + 1000)
        self.has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in self.model.modules())

    def _shuffled(self, seed: int) -> Iterator[Split]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self.train.labels), generator=generator)
            for rows in order[: self.steps_per_epoch * self.batch_size].split(self.batch_size):
                yield self.train.rows(rows)

    def loss(self) -> Tensor:
        """Computes the loss of the next batch."""
        batch = next(self.batches)
        return self.criterion(self.model(*batch.inputs), batch.labels)

    def validate(self) -> tuple[Tensor, Tensor]:
        """Computes outputs in evaluation mode."""
        self.model.eval()
        outputs = self.model(*self.val.inputs)
        self.model.train()
        return outputs, self.val.labels

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Computes the cross entropy, nats."""
        if self.binary:
            return F.binary_cross_entropy_with_logits(outputs, labels)
        return F.cross_entropy(outputs.flatten(0, -2), labels.flatten())

    def metric(self, outputs: Tensor, labels: Tensor) -> float:
        """Computes accuracy over classes, or AUC of a binary margin."""
        return auc(outputs, labels) if self.binary else accuracy(outputs, labels)

    def chance(self) -> float:
        """Computes the share of the most frequent class; an AUC's is a half."""
        return 0.5 if self.binary else share_of_largest(self.val.labels)

    def recalibrate(self) -> None:
        """Measures them over 20 batches that training does not see in this order."""
        if self.has_batch_norm:
            with torch.no_grad():
                for _ in range(20):
                    self.model(*next(self.calibration).inputs)


class RegressionProblem(NetworkProblem):
    """Trains a network by the squared error of standardised values, (N,) or (N, D)."""

    def criterion(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Computes the mean squared error."""
        return F.mse_loss(outputs, labels)

    def metric(self, outputs: Tensor, labels: Tensor) -> float:
        """Computes the share of the variance that is explained, R2, where that is above zero."""
        return explained(outputs, labels)

    def chance(self) -> float:
        """Gives the R2 of the mean."""
        return 0.0


def auc(margins: Tensor, labels: Tensor) -> float:
    """Computes the area under the curve of a binary margin."""
    return float(binary_auroc(margins.sigmoid(), labels.long()))


def accuracy(outputs: Tensor, labels: Tensor) -> float:
    """Computes the share of the rows whose largest output is that of their class."""
    return float((outputs.argmax(-1) == labels).float().mean())


def explained(outputs: Tensor, labels: Tensor) -> float:
    """Computes the share of the variance that is explained, R2, where that is above zero."""
    unexplained = (outputs - labels).square().mean() / (labels - labels.mean(0)).square().mean()
    return max(0.0, 1.0 - float(unexplained))


def share_of_largest(labels: Tensor) -> float:
    """Computes the share of the most frequent class."""
    return float(labels.flatten().bincount().max()) / labels.numel()
