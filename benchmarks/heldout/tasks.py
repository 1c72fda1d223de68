"""The suite's tasks: a network with its data, or boosted trees, as one problem that a plain loop trains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.heldout import data
from benchmarks.heldout.networks import Bert, CharacterTransformer, ResNet8
from benchmarks.suites.problem import NetworkProblem, Problem, Task, auc
from models import BoostedTrees, ConvNet, TabularMLP

USUAL_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3, "boosting": 0.1}
"""Middle of the range of initial rates, by optimizer."""


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
        return auc(outputs, labels)

    def chance(self) -> float:
        """Gives the AUC of margins that are all the same."""
        return 0.5


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
