"""Losses of XGBoost's objectives, in torch: what the rows of a training lose at given margins.

XGBoost gives a callback neither its objective's loss nor its gradient, so both are computed here, in XGBoost's own
units of the margins (https://xgboost.readthedocs.io/en/stable/parameter.html#learning-task-parameters).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PAIRS = 2**22
"""Pairs of rows that the ranking losses compare at once, which bounds their memory."""

EPS = 1e-12
"""Smallest probability that a censored row is given, as in XGBoost."""


@dataclass(frozen=True)
class Rows:
    """Holds what a loss needs of the training rows.

    Attributes:
        labels: (N,), or (N, K) for several targets; empty where `lower` and `upper` stand in for them.
        weights: (N,) or (N, K), summing to 1 over the rows.
        options: of the objective, by XGBoost's names, as text.
        lower: lower bounds of censored labels, (N,).
        upper: upper bounds of censored labels, (N,); inf for a row that is censored on the right.
        groups: rows of each query of a ranking, in order; empty otherwise.
    """

    labels: Tensor
    weights: Tensor
    options: dict[str, str] = field(default_factory=dict)
    lower: Tensor = field(default_factory=lambda: torch.empty(0))
    upper: Tensor = field(default_factory=lambda: torch.empty(0))
    groups: tuple[int, ...] = ()


ObjectiveLoss = Callable[[Tensor, Rows], Tensor]
"""Losses of the rows, (N,) or (N, K), from margins (N,) or (N, K) and the rows."""


def read_rows(matrix: Any, objective: dict[str, Any], name: str = "dtrain") -> Rows:
    """Reads what the losses need off a DMatrix.

    Args:
        matrix: an `xgboost.DMatrix` of N rows.
        objective: as in a booster's configuration: its name, and its options in dicts.
        name: of the matrix, for the message.

    Raises:
        ValueError: where there are neither labels nor bounds.
    """
    labels, weights, lower, upper = (
        torch.from_numpy(np.array(matrix.get_float_info(part), np.float32))
        for part in ("label", "weight", "label_lower_bound", "label_upper_bound")
    )
    if not len(labels) and not len(lower):
        raise ValueError(f"{name} has no labels: give its DMatrix its label=")
    count = matrix.num_row()
    if labels.numel() > count:
        labels = labels.reshape(count, -1)
    options = {name: value for part in objective.values() if isinstance(part, dict) for name, value in part.items()}
    groups = np.diff(matrix.get_uint_info("group_ptr").astype(np.int64)).tolist()
    ranked = objective["name"].startswith("rank:")
    groups = tuple(groups or [count]) if ranked else ()
    weights = _row_weights(weights, labels, groups, count, float(options.get("scale_pos_weight", 1.0)))
    return Rows(labels, weights, options, lower, upper, groups)


def _row_weights(weights: Tensor, labels: Tensor, groups: tuple[int, ...], count: int, positive: float) -> Tensor:
    """Computes weights, (N,) or (N, K), that sum to 1 over the rows; in a ranking, each query has one weight."""
    if not len(weights):
        weights = torch.ones(count)
    elif groups:
        weights = weights.repeat_interleave(torch.tensor(groups))
    if positive != 1.0:
        weights = weights if labels.ndim == 1 else weights[:, None]
        weights = torch.where(labels == 1.0, weights * positive, weights)
    return weights / weights.sum(0)


def _logistic(margins: Tensor, rows: Rows) -> Tensor:
    return F.binary_cross_entropy_with_logits(margins, rows.labels, reduction="none")


def _hinge(margins: Tensor, rows: Rows) -> Tensor:
    return (1.0 - (2.0 * rows.labels - 1.0) * margins).relu()


def _squared(margins: Tensor, rows: Rows) -> Tensor:
    return 0.5 * (margins - rows.labels).square()


def _squared_log(margins: Tensor, rows: Rows) -> Tensor:
    return 0.5 * (margins.clamp_min(-1.0 + 1e-6).log1p() - rows.labels.log1p()).square()


def _absolute(margins: Tensor, rows: Rows) -> Tensor:
    return (margins - rows.labels).abs()


def _pseudo_huber(margins: Tensor, rows: Rows) -> Tensor:
    slope = float(rows.options["huber_slope"])
    return slope**2 * ((1.0 + ((margins - rows.labels) / slope).square()).sqrt() - 1.0)


def _quantile(margins: Tensor, rows: Rows) -> Tensor:
    """Computes the pinball loss, one column a quantile."""
    levels = torch.tensor(json.loads(rows.options["quantile_alpha"])).reshape(1, -1)
    error = rows.labels.reshape(len(margins), 1) - margins.reshape(len(margins), -1)
    return torch.maximum(levels * error, (levels - 1.0) * error)


def _softmax(margins: Tensor, rows: Rows) -> Tensor:
    return F.cross_entropy(margins, rows.labels.long(), reduction="none")


def _poisson(margins: Tensor, rows: Rows) -> Tensor:
    return margins.exp() - rows.labels * margins


def _gamma(margins: Tensor, rows: Rows) -> Tensor:
    return rows.labels * (-margins).exp() + margins


def _tweedie(margins: Tensor, rows: Rows) -> Tensor:
    power = float(rows.options["tweedie_variance_power"])
    likely = rows.labels * ((1.0 - power) * margins).exp() / (1.0 - power)
    return ((2.0 - power) * margins).exp() / (2.0 - power) - likely


def _cox(margins: Tensor, rows: Rows) -> Tensor:
    """Computes the negative partial likelihood (Cox 1972; ties: Breslow); a negative label is a censored time."""
    order = rows.labels.abs().argsort(descending=True)
    times = rows.labels.abs()[order]
    at_risk = margins[order].logcumsumexp(0)  # of all who live at least as long
    last = torch.searchsorted(-times, -times, right=True) - 1  # of those with the same time
    losses = torch.empty_like(margins)
    losses[order] = at_risk[last] - margins[order]
    return torch.where(rows.labels > 0, losses, torch.zeros(()))


def _aft(margins: Tensor, rows: Rows) -> Tensor:
    """Computes the negative log-likelihood of an accelerated failure time, of which a row may know the bounds alone."""
    scale = float(rows.options["aft_loss_distribution_scale"])
    log_density, log_below, log_above = _DISTRIBUTIONS[rows.options["aft_loss_distribution"]]
    low, high = rows.lower, rows.upper
    known, left, right = low == high, low <= 0.0, high.isinf()
    # What a row does not have is replaced before anything is computed of it: inf has no gradient.
    upper = (torch.where(right, 1.0, high).log() - margins) / scale
    lower = (torch.where(left, torch.where(right, 1.0, high), low).log() - margins) / scale
    above, below = _difference(log_above(lower), log_above(upper)), _difference(log_below(upper), log_below(lower))
    between = torch.where(lower + upper > 0.0, above, below)
    censored = torch.where(right, log_above(lower), torch.where(left, log_below(upper), between))
    exact = log_density(lower) - torch.where(left, 1.0, low).log() - torch.log(torch.tensor(scale))
    return -torch.where(known, exact, torch.where(left & right, 0.0, censored))


def _difference(large: Tensor, small: Tensor) -> Tensor:
    """Computes log(exp(large) - exp(small))."""
    return large + (-torch.expm1((small - large).clamp_max(-EPS))).clamp_min(EPS).log()


def _extreme_below(z: Tensor) -> Tensor:
    return (-torch.expm1(-z.clamp(-25.0, 4.0).exp())).log()


_DISTRIBUTIONS: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "normal": (
        lambda z: -0.5 * (z.square() + torch.log(torch.tensor(2.0 * torch.pi))),
        torch.special.log_ndtr,
        lambda z: torch.special.log_ndtr(-z),
    ),
    "logistic": (lambda z: F.logsigmoid(z) + F.logsigmoid(-z), F.logsigmoid, lambda z: F.logsigmoid(-z)),
    "extreme": (lambda z: z - z.clamp_max(25.0).exp(), _extreme_below, lambda z: -z.clamp_max(25.0).exp()),
}
"""Logs of a distribution's density, of the probability below z, and of that above it."""


def _pairwise(margins: Tensor, rows: Rows) -> Tensor:
    """Computes RankNet's loss (Burges et al. 2005): a row's share of the pairs of its query that it is in."""
    losses = []
    for at in _batches(rows.groups):
        inside = at >= 0
        score, label = margins[at.clamp_min(0)], rows.labels[at.clamp_min(0)]
        above = (label[:, :, None] > label[:, None, :]) & inside[:, :, None] & inside[:, None, :]
        pairs = F.softplus(score[:, None, :] - score[:, :, None]) * above
        pairs = pairs / above.sum((1, 2), keepdim=True).clamp_min(1)
        losses.append((0.5 * (pairs.sum(2) + pairs.sum(1)))[inside])
    return torch.cat(losses)


def _batches(groups: tuple[int, ...]) -> Iterator[Tensor]:
    """Yields row indices of neighbouring queries, padded with -1, (queries, longest): at most `PAIRS` pairs each."""
    taken: list[Tensor] = []
    start = longest = 0
    for size in groups:
        if taken and (len(taken) + 1) * max(longest, size) ** 2 > PAIRS:
            yield _padded(taken)
            taken, longest = [], 0
        taken.append(torch.arange(start, start + size))
        start, longest = start + size, max(longest, size)
    yield _padded(taken)


def _padded(parts: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=-1)


LOSSES: dict[str, ObjectiveLoss] = {
    "binary:hinge": _hinge,
    "binary:logistic": _logistic,
    "binary:logitraw": _logistic,
    "count:poisson": _poisson,
    "multi:softmax": _softmax,
    "multi:softprob": _softmax,
    "rank:map": _pairwise,
    "rank:ndcg": _pairwise,
    "rank:pairwise": _pairwise,
    "reg:absoluteerror": _absolute,
    "reg:gamma": _gamma,
    "reg:linear": _squared,
    "reg:logistic": _logistic,
    "reg:pseudohubererror": _pseudo_huber,
    "reg:quantileerror": _quantile,
    "reg:squarederror": _squared,
    "reg:squaredlogerror": _squared_log,
    "reg:tweedie": _tweedie,
    "survival:aft": _aft,
    "survival:cox": _cox,
}
"""By the objective's name. The three rankings share a loss: LambdaMART's gradient is not that of a loss."""
