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
        real: sample scikit-learn's tables in place of random ones: digits and breast cancer, some classes against the
            others; all ten of digits with "classes"; and diabetes with "values". It needs scikit-learn; `train_sizes`
            and `valid_size` are bounded by the sets' rows.
        labels: "noisy", as above; "clean": the columns tell the classes apart without an error; "classes": three to ten
            of them, noisy but for real ones; "clean_classes": three to ten without an error; "values": real ones with
            noise, for a regression on the squared error; "robust": these in any unit, some of them far out, on
            XGBoost's pseudo-Huber error of slope 1; "counts": for a Poisson regression; or "hinge": as "noisy", on the
            hinge loss.

    Raises:
        ValueError: for other labels.
    """

    optimizer = "boosting"

    def __init__(
        self,
        train_sizes: Sequence[int] = (300, 1000, 3000),
        valid_size: int = 1500,
        real: bool = False,
        labels: str = "noisy",
    ) -> None:
        if labels not in _LABELS or (real and labels not in _REAL):
            raise ValueError(
                f"labels={labels!r}, real={real}: choose one of {', '.join(_LABELS)}; with real, of {', '.join(_REAL)}"
            )
        self.train_sizes, self.valid_size, self.real = tuple(train_sizes), valid_size, real
        self.labels = labels

    def sample(self, instances: int, generator: torch.Generator) -> BoostingTask:
        """Samples tables and parameters, an instance at a time.

        Raises:
            ValueError: with `real`, for more rows than the real sets have.
        """
        size, classes = pick(generator, self.train_sizes), 1
        if self.labels in ("classes", "clean_classes"):
            classes = 10 if self.real else pick(generator, (3, 4, 6, 10))
        tables = [self._table(size, size + self.valid_size, classes, generator) for _ in range(instances)]
        train = [Table(t.features[:size], t.labels[:size], t.types) for t in tables]
        valid = [Table(t.features[size:], t.labels[size:], t.types) for t in tables]
        params = [_params(generator) for _ in range(instances)]
        return BoostingTask(train, valid, params, _OBJECTIVES.get(self.labels, "logistic"), classes)

    def _table(self, train: int, samples: int, classes: int, generator: torch.Generator) -> Table:
        """Samples a table whose first `train` rows are for training; each of two classes occurs in both parts."""
        if self.real:
            features, labels, types = _REAL[self.labels](samples, generator)
        else:
            make = (_additive_table, _clusters_table)[pick(generator, (0, 1))]
            features, labels, types = make(samples, _LABELS[self.labels], classes, generator)
        if self.labels in ("noisy", "hinge") or (self.labels == "classes" and not self.real):
            wrong = torch.rand(labels.shape, generator=generator) < float(uniform((), -0.2, 0.2, generator))
            others = 1.0 - labels if classes == 1 else torch.randint(classes, labels.shape, generator=generator).float()
            labels = torch.where(wrong, others, labels)
        if self.labels in ("noisy", "clean", "hinge"):
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


def _noisy(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Samples classes, (N,), whose log-odds are a standardised score times a clarity of 0.5 to 100."""
    score = scores[0]
    clarity = float(log_uniform((), 0.5, 100.0, generator))
    odds = clarity * (score + float(uniform((), -1.0, 1.0, generator)))
    return torch.bernoulli(odds.sigmoid(), generator=generator)


def _clean(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Tells the classes by a bound on the score."""
    score = scores[0]
    return (score > float(uniform((), -1.0, 1.0, generator))).float()


def _several(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Samples classes, (N,), whose log-odds are the standardised scores (classes, N) times a clarity of 0.5 to 100."""
    clarity = float(log_uniform((), 0.5, 100.0, generator))
    gumbel = -torch.empty_like(scores).exponential_(generator=generator).log()
    return (clarity * scores + gumbel).argmax(0).float()


def _clean_classes(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Tells the classes, (N,), by the largest of their scores, (classes, N)."""
    return scores.argmax(0).float()


def _values(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Adds noise to the score."""
    score = scores[0]
    return score + float(log_uniform((), 0.01, 0.5, generator)) * torch.randn(score.shape, generator=generator)


def _robust(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Adds noise to the score, and far more to a share of the rows, and chooses a unit."""
    labels = _values(scores, generator)
    far = torch.rand(labels.shape, generator=generator) < float(uniform((), -0.1, 0.2, generator))
    labels = labels + far * float(log_uniform((), 1.0, 5.0, generator)) * torch.randn(labels.shape, generator=generator)
    return float(log_uniform((), 0.3, 10.0, generator)) * labels


def _counts(scores: Tensor, generator: torch.Generator) -> Tensor:
    """Samples counts whose log rate follows the score."""
    rate = float(uniform((), 0.2, 1.2, generator)) * scores[0] + float(uniform((), -1.0, 2.0, generator))
    counts = torch.poisson(rate.clamp(max=5.0).exp(), generator=generator)
    counts[0] = counts[0].clamp(min=1.0)  # some event in the training rows
    return counts


Labels = Callable[[Tensor, torch.Generator], Tensor]
"""Makes the labels (N,) of standardised scores, (1, N) or (classes, N)."""

_LABELS: dict[str, Labels] = {
    "noisy": _noisy,
    "clean": _clean,
    "classes": _several,
    "clean_classes": _clean_classes,
    "values": _values,
    "robust": _robust,
    "counts": _counts,
    "hinge": _noisy,
}
_OBJECTIVES = {
    "classes": "softmax",
    "clean_classes": "softmax",
    "values": "squared",
    "robust": "pseudo_huber",
    "counts": "poisson",
    "hinge": "hinge",
}


def _additive_table(samples: int, labels_of: Labels, classes: int, generator: torch.Generator) -> Rows:
    """Samples rows whose labels follow the scores of random additive models."""
    numbers, categories = pick(generator, (*range(3, 16), 24, 32)), pick(generator, range(7))
    x = torch.randn(samples, numbers, generator=generator)
    mixing = torch.randn(numbers, numbers, generator=generator) / numbers**0.5
    x = torch.lerp(x, x @ mixing, float(torch.rand((), generator=generator)))
    cardinalities = [pick(generator, (2, 4, 8, 16)) for _ in range(categories)]
    codes = [torch.randint(c, (samples,), generator=generator) for c in cardinalities]
    scores = []
    for _ in range(classes):
        effects = [torch.randn(c, generator=generator)[code] for c, code in zip(cardinalities, codes, strict=True)]
        score = torch.stack([_term(x, generator) for _ in range(pick(generator, range(2, 13)))] + effects).sum(0)
        scores.append((score - score.mean()) / score.std().clamp_min(1e-6))
    labels = labels_of(torch.stack(scores), generator)
    missing = torch.rand(x.shape, generator=generator) < float(uniform((), -0.2, 0.2, generator))
    features = torch.cat((x.masked_fill(missing, float("nan")), *(code.float()[:, None] for code in codes)), dim=1)
    return features, labels, ("q",) * numbers + ("c",) * categories


def _clusters_table(samples: int, labels_of: Labels, classes: int, generator: torch.Generator) -> Rows:
    """Samples rows about the centres of clusters, each of one label, seen through many noisy columns."""
    factors, clusters = pick(generator, range(2, 9)), pick(generator, range(2, 13))
    if classes > 1:
        clusters = classes * pick(generator, (1, 1, 2, 4))
    columns = pick(generator, (4, 8, 16, 32, 48))
    centres = float(uniform((), 0.7, 4.0, generator)) * torch.randn(clusters, factors, generator=generator)
    which = torch.randint(clusters, (samples,), generator=generator)
    x = centres[which] + torch.randn(samples, factors, generator=generator)
    x = x @ torch.randn(factors, columns, generator=generator)
    x = x + float(log_uniform((), 0.1, 3.0, generator)) * torch.randn(x.shape, generator=generator)
    if pick(generator, (0, 1)):  # bounded and in whole numbers, as pixels
        x = (4.0 * x).round().clamp(0, 16)
    order = torch.randperm(clusters, generator=generator)
    positive = order < max(1, clusters // pick(generator, (2, 2, 3, 6)))
    if labels_of in (_several, _clean_classes):
        return x, (order % classes)[which].float(), ("q",) * columns
    if labels_of in (_values, _robust, _counts):
        return x, labels_of(torch.randn(1, clusters, generator=generator)[:, which], generator), ("q",) * columns
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


def _two_groups(samples: int, generator: torch.Generator) -> Rows:
    """Takes some classes of digits or breast cancer against the others."""
    from sklearn.datasets import load_breast_cancer, load_digits

    features, classes = (load_digits, load_breast_cancer)[pick(generator, (0, 1))](return_X_y=True)
    if len(classes) < samples:
        features, classes = load_digits(return_X_y=True)
    count = int(classes.max()) + 1
    positive = torch.randperm(count, generator=generator)[: count // 2].numpy()
    return _shuffled(features, np.isin(classes, positive), samples, generator)


def _digits(samples: int, generator: torch.Generator) -> Rows:
    """Takes the ten digits."""
    from sklearn.datasets import load_digits

    features, digits = load_digits(return_X_y=True)
    return _shuffled(features, digits, samples, generator)


def _diabetes(samples: int, generator: torch.Generator) -> Rows:
    """Takes the progress of diabetes, standardised."""
    from sklearn.datasets import load_diabetes

    features, progress = load_diabetes(return_X_y=True)
    return _shuffled(features, (progress - progress.mean()) / progress.std(), samples, generator)


_REAL = {"noisy": _two_groups, "classes": _digits, "values": _diabetes}


def _shuffled(features: np.ndarray, labels: np.ndarray, samples: int, generator: torch.Generator) -> Rows:
    """Takes so many rows of a real set, in a random order."""
    if len(labels) < samples:
        raise ValueError(f"train_sizes and valid_size ask for {samples} rows: the real sets have {len(labels)} at most")
    rows = torch.randperm(len(labels), generator=generator)[:samples].numpy()
    return torch.from_numpy(features[rows]), torch.from_numpy(labels[rows]).float(), ("q",) * features.shape[1]
