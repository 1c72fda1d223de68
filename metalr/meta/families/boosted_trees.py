"""Boosted trees on tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metalr.meta.boosting_task import BoostingTask, Table
from metalr.meta.families.pool import log_uniform, pick, uniform
from metalr.meta.family import TaskFamily

_DEPTHS = (2, 3, 4, 5, 6, 6, 7, 8)
_BINS = 64


class BoostedTreesTasks(TaskFamily):
    """Samples boosted trees on random tables of numbers and categories, or on scikit-learn's real ones.

    In half of the random tables the log-odds are a sum of random terms of one to three columns (slopes, steps, waves,
    products) and of an effect of each category; labels are from certain to nearly random, and their shares from equal
    to 1 in 20. The other half are clusters in a few factors, which all columns are noisy views of, as pixels are: the
    rows of a cluster share a label, and most of it can be learned. Trees are 2 to 8 deep; XGBoost's other parameters
    are at their defaults in half of the instances, and vary about them in the others.

    Args:
        train_sizes: numbers of training rows, one of which is chosen for a task.
        valid_size: number of validation rows.
        real: sample from scikit-learn's digits and breast cancer, some classes against the others, in place of random
            tables. It needs scikit-learn; `train_sizes` and `valid_size` are bounded by the sets' rows.
        labels: "noisy", as above; "clean": the columns tell the classes apart without an error; or "values": real ones
            with noise, for a regression on the squared error.

    Raises:
        ValueError: for other labels, or real tables with other labels than noisy ones.
    """

    optimizer = "boosting"

    def __init__(
        self,
        train_sizes: Sequence[int] = (300, 1000, 3000),
        valid_size: int = 1500,
        real: bool = False,
        labels: str = "noisy",
    ) -> None:
        if labels not in _LABELS or (real and labels != "noisy"):
            raise ValueError(f"labels={labels!r}, real={real}: choose one of {', '.join(_LABELS)}; real ones are noisy")
        self.train_sizes, self.valid_size, self.real = tuple(train_sizes), valid_size, real
        self.labels = labels

    def sample(self, instances: int, generator: torch.Generator) -> BoostingTask:
        """Samples tables and parameters, an instance at a time.

        Raises:
            ValueError: with `real`, for more rows than the real sets have.
        """
        size = pick(generator, self.train_sizes)
        tables = [self._table(size, size + self.valid_size, generator) for _ in range(instances)]
        train = [Table(t.features[:size], t.labels[:size], t.types) for t in tables]
        valid = [Table(t.features[size:], t.labels[size:], t.types) for t in tables]
        objective = "squared" if self.labels == "values" else "logistic"
        return BoostingTask(train, valid, [_params(generator) for _ in range(instances)], objective)

    def _table(self, train: int, samples: int, generator: torch.Generator) -> Table:
        """Rows, of which the first `train` are for training, with both classes in training and in validation."""
        if self.real:
            features, labels, types = _real_table(samples, generator)
        else:
            make = (_additive_table, _clusters_table)[pick(generator, (0, 1))]
            features, labels, types = make(samples, _LABELS[self.labels], generator)
        if self.labels == "noisy":
            wrong = torch.rand(labels.shape, generator=generator) < float(uniform((), -0.2, 0.2, generator))
            labels = torch.where(wrong, 1.0 - labels, labels)
        if self.labels != "values":
            labels[[0, train]], labels[[1, train + 1]] = 0.0, 1.0
        return Table(features.float().numpy(), labels.numpy(), types)


Rows = tuple[Tensor, Tensor, tuple[str, ...]]
"""Features (N, F), labels (N,), and types of the columns as in `Table`."""


def _params(generator: torch.Generator) -> dict[str, Any]:
    params: dict[str, Any] = {"max_depth": pick(generator, _DEPTHS), "max_bin": _BINS, "tree_method": "hist"}
    params |= {"seed": pick(generator, range(2**16)), "seed_per_iteration": True}  # the latter lets runs resume
    if pick(generator, (0, 1)):
        return params
    weight = float(log_uniform((), 0.1, 30.0, generator))
    l2 = float(log_uniform((), 0.1, 10.0, generator))
    rows, columns = uniform((2,), 0.5, 1.0, generator).tolist()
    return params | {"min_child_weight": weight, "lambda": l2, "subsample": rows, "colsample_bytree": columns}


def _noisy(score: Tensor, generator: torch.Generator) -> Tensor:
    """Samples classes, (N,), whose log-odds are a standardised score times a clarity of 0.5 to 100."""
    clarity = float(log_uniform((), 0.5, 100.0, generator))
    odds = clarity * (score + float(uniform((), -1.0, 1.0, generator)))
    return torch.bernoulli(odds.sigmoid(), generator=generator)


def _clean(score: Tensor, generator: torch.Generator) -> Tensor:
    """Tells the classes by a bound on the score."""
    return (score > float(uniform((), -1.0, 1.0, generator))).float()


def _values(score: Tensor, generator: torch.Generator) -> Tensor:
    """Adds noise to the score."""
    return score + float(log_uniform((), 0.01, 0.5, generator)) * torch.randn(score.shape, generator=generator)


Labels = Callable[[Tensor, torch.Generator], Tensor]
_LABELS: dict[str, Labels] = {"noisy": _noisy, "clean": _clean, "values": _values}


def _additive_table(samples: int, labels_of: Labels, generator: torch.Generator) -> Rows:
    """Labels by the score of a random additive model."""
    numbers, categories = pick(generator, (*range(3, 16), 24, 32)), pick(generator, range(7))
    x = torch.randn(samples, numbers, generator=generator)
    mixing = torch.randn(numbers, numbers, generator=generator) / numbers**0.5
    x = torch.lerp(x, x @ mixing, float(torch.rand((), generator=generator)))
    cardinalities = [pick(generator, (2, 4, 8, 16)) for _ in range(categories)]
    codes = [torch.randint(c, (samples,), generator=generator) for c in cardinalities]
    effects = [torch.randn(c, generator=generator)[code] for c, code in zip(cardinalities, codes, strict=True)]
    score = torch.stack([_term(x, generator) for _ in range(pick(generator, range(2, 13)))] + effects).sum(0)
    score = (score - score.mean()) / score.std().clamp_min(1e-6)
    labels = labels_of(score, generator)
    missing = torch.rand(x.shape, generator=generator) < float(uniform((), -0.2, 0.2, generator))
    features = torch.cat((x.masked_fill(missing, float("nan")), *(code.float()[:, None] for code in codes)), dim=1)
    return features, labels, ("q",) * numbers + ("c",) * categories


def _clusters_table(samples: int, labels_of: Labels, generator: torch.Generator) -> Rows:
    """Samples rows about the centres of clusters, each of one label, seen through many noisy columns."""
    factors, clusters = pick(generator, range(2, 9)), pick(generator, range(2, 13))
    columns = pick(generator, (4, 8, 16, 32, 48))
    centres = float(uniform((), 0.7, 4.0, generator)) * torch.randn(clusters, factors, generator=generator)
    which = torch.randint(clusters, (samples,), generator=generator)
    x = centres[which] + torch.randn(samples, factors, generator=generator)
    x = x @ torch.randn(factors, columns, generator=generator)
    x = x + float(log_uniform((), 0.1, 3.0, generator)) * torch.randn(x.shape, generator=generator)
    if pick(generator, (0, 1)):  # bounded and in whole numbers, as pixels
        x = (4.0 * x).round().clamp(0, 16)
    positive = torch.randperm(clusters, generator=generator) < max(1, clusters // pick(generator, (2, 2, 3, 6)))
    if labels_of is _values:
        return x, _values(torch.randn(clusters, generator=generator)[which], generator), ("q",) * columns
    return x, positive[which].float(), ("q",) * columns


def _term(x: Tensor, generator: torch.Generator) -> Tensor:
    """Computes one term of the log-odds, (N,)."""
    columns = torch.randint(x.shape[1], (pick(generator, (1, 1, 2, 2, 3)),), generator=generator)
    parts, size = x[:, columns], float(log_uniform((), 0.3, 3.0, generator))
    kind = pick(generator, range(4))
    if kind == 0:
        return size * parts.prod(1)
    if kind == 1:
        return size * (parts > torch.randn(len(columns), generator=generator)).float().prod(1)
    if kind == 2:
        return size * torch.sin(float(uniform((), 1.0, 4.0, generator)) * parts.sum(1))
    return size * torch.tanh(2.0 * parts.sum(1))


def _real_table(samples: int, generator: torch.Generator) -> Rows:
    """Takes some classes of a real set against the others, in a random order of its rows."""
    from sklearn.datasets import load_breast_cancer, load_digits

    features, classes = (load_digits, load_breast_cancer)[pick(generator, (0, 1))](return_X_y=True)
    if len(classes) < samples:
        features, classes = load_digits(return_X_y=True)
    if len(classes) < samples:
        raise ValueError(
            f"train_sizes and valid_size ask for {samples} rows: the real sets have {len(classes)} at most"
        )
    count = int(classes.max()) + 1
    positive = torch.randperm(count, generator=generator)[: count // 2].numpy()
    rows = torch.randperm(len(classes), generator=generator)[:samples].numpy()
    labels = torch.from_numpy(np.isin(classes[rows], positive)).float()
    return torch.from_numpy(features[rows]), labels, ("q",) * features.shape[1]
