"""Sharing: assigns task batches to ranks, and exchanges the results of their inner runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from metalr.meta.estimator import Estimate


def shares(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Shares task batches out over the ranks: the costliest first, each to the rank with the least to do so far.

    Example:
        >>> shares([10, 70, 30, 40], ranks=2)
        [[1, 0], [3, 2]]

    Args:
        costs: of each task batch.
        ranks: number of ranks.

    Returns:
        The places of each rank's task batches in `costs`.
    """
    own: list[list[int]] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        rank = loads.index(min(loads))
        own[rank].append(place)
        loads[rank] += costs[place]
    return own


def outcome_table(estimates: Mapping[int, Estimate], task_batches: int, size: int, device: torch.device) -> Tensor:
    """Puts a rank's estimates into the rows of their task batches, the others zero: the ranks' tables add up to all.

    A row is the gradient, the mean loss and the number of inner steps. Each row is a number of one rank plus zeros, so
    that the sum over the ranks does not depend on who made it, to the last bit.

    Args:
        estimates: by the place of their task batch.
        task_batches: of the meta-step.
        size: of a gradient.
        device: of the table.

    Returns:
        The table, (task_batches, size + 2).
    """
    table = torch.zeros(task_batches, size + 2, device=device)
    for place, estimate in estimates.items():
        steps = torch.tensor([float(estimate.losses.mean()), float(estimate.inner_steps)], device=device)
        table[place] = torch.cat((estimate.gradient, steps))
    return table
