"""The suite's tasks: a network with its data, or boosted trees, as one problem that a plain loop trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from benchmarks.heldout import data
from benchmarks.heldout.data import Data, Split
from benchmarks.heldout.networks import Bert, CharacterTransformer, ResNet8
from models import BoostedTrees, ConvNet, TabularMLP

USUAL_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "boosting": 0.1}
"""Middle of the range of initial rates, by optimizer."""


class Problem(ABC):
    """Holds one run's model and data; all runs of a task and a seed have the same weights, batches and dropout masks.

    Attributes:
        model: what is trained.
    """

    model: nn.Module

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
        self.batches = self._shuffled(seed)
        self.calibration = self._shuffled(seed + 1000)
        self.has_batch_norm = any(isinstance(module, nn.BatchNorm2d) for module in self.model.modules())

    def _shuffled(self, seed: int) -> Iterator[Split]:
        generator = torch.Generator().manual_seed(seed)
        count = len(self.train.labels)
        while True:
            order = torch.randperm(count, generator=generator)
            for rows in order[: count // self.batch_size * self.batch_size].split(self.batch_size):
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
        return _auc(outputs, labels) if self.binary else float((outputs.argmax(-1) == labels).float().mean())

    def recalibrate(self) -> None:
        """Measures them over 20 batches that training does not see in this order."""
        if self.has_batch_norm:
            with torch.no_grad():
                for _ in range(20):
                    self.model(*next(self.calibration).inputs)


class BoostingProblem(Problem):
    """Boosts trees on 4,000 rows of Adult, chosen by the seed: all of them at each round."""

    def __init__(self, root: str | None, seed: int) -> None:
        arrays, self.val = data.adult_arrays(root)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(arrays.labels), generator=generator)[:4000].numpy()
        self.model = BoostedTrees(max_depth=6, params={"max_bin": 64}, seed=seed)
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
        return _auc(outputs, labels)


def _auc(margins: Tensor, labels: Tensor) -> float:
    return float(binary_auroc(margins.sigmoid(), labels.long()))


@dataclass(frozen=True)
class Task:
    """Describes a kind of work.

    Attributes:
        title: for the report.
        horizons: short and long, optimizer steps.
        make: the problem of a seed, from the data's root (None for the hub) and the seed.
        optimizers: that it is trained with, of `USUAL_LR`.
        metric: name of what `Problem.metric` gives.
    """

    title: str
    horizons: tuple[int, int]
    make: Callable[[str | None, int], Problem]
    optimizers: tuple[str, ...] = ("sgd", "adamw")
    metric: str = "accuracy"

    @property
    def is_boosted(self) -> bool:
        """Whether it is boosted trees, which are their own optimizer."""
        return self.optimizers == ("boosting",)


def _adult(root: str | None, seed: int) -> Problem:
    sizes = data.adult_category_sizes(root)
    return NetworkProblem(lambda: TabularMLP(6, sizes, hidden=(64, 32)), data.adult(root), 64, seed)


TASKS: dict[str, Task] = {
    "digits": Task(
        "convnet on real digits, batch 32",
        (100, 500),
        lambda root, seed: NetworkProblem(ConvNet, data.digits(root), 32, seed),
    ),
    "adult": Task("perceptron with embeddings on Adult, batch 64", (100, 500), _adult, metric="AUC"),
    "xgboost": Task(
        "XGBoost, depth 6, on 4,000 rows of Adult", (50, 250), BoostingProblem, ("boosting",), metric="AUC"
    ),
    "cifar10": Task(
        "batch-normalised ResNet-8, width 8, on CIFAR-10 at 16x16, batch 32",
        (60, 300),
        lambda root, seed: NetworkProblem(ResNet8, data.cifar10(root), 32, seed),
    ),
    "sst2": Task(
        "2-layer BERT, width 32, on SST-2, batch 32",
        (80, 400),
        lambda root, seed: NetworkProblem(Bert, data.sst2(root), 32, seed),
        ("adamw",),  # with SGD it learns nothing in so few steps, at any rate: there is nothing to compare
    ),
    "characters": Task(
        "2-layer causal transformer, width 32, on SQuAD's paragraphs, batch 16 x 32 characters",
        (60, 300),
        lambda root, seed: NetworkProblem(CharacterTransformer, data.characters(root), 16, seed),
    ),
}
"""By name."""
