"""The states that a policy visits on the tasks of its meta-training, from which its support is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.meta.distribution import TaskBatch, TaskDistribution
from metalr.meta.rollout import rollout

_RUNS, _TIMES, _LEAST = 8, 48, 2000


def visited_states(policy: LRPolicy, distribution: TaskDistribution, batches: int = 48) -> Tensor:
    """Collects features along runs of the policy, on task batches that its meta-training has not used.

    Half of the steps kept of a run are evenly spaced and half are log-spaced, since the first steps have states that
    occur nowhere else. Steps whose signals are not finite are left out.

    Args:
        policy: that sets the rates.
        distribution: of the tasks; it samples task batches with negative indices.
        batches: number of task batches of 8 runs, of each of which at most 48 steps are kept; more batches are sampled
            where these give fewer than 2,000 states.

    Returns:
        All features of each state, (N, F).
    """
    states: list[Tensor] = []
    index = 0
    while index < batches or sum(map(len, states)) < _LEAST:
        states.append(states_of(policy, distribution.sample(-1 - index, _RUNS, policy.anytime)))
        index += 1
    return torch.cat(states)


def states_of(policy: LRPolicy, batch: TaskBatch, copies: int = 1, compiled: bool = False) -> Tensor:
    """Collects features along runs of the policy on one task batch, of at most 48 steps: (N, F).

    Args:
        policy: that sets the rates.
        batch: of tasks.
        copies: runs of each instance, which are alike; those of an estimator share its compiled parts.
        compiled: run inner steps through torch.compile.
    """
    task = batch.task.to(policy.columns.device)
    runs = rollout(task, batch.inner, policy.function(), copies=copies, evaluations=1, compiled=compiled, record=True)
    kept = [runs.records[t] for t in _times(batch.inner.total_steps)]
    return torch.cat([record.features[record.finite] for record in kept])


def _times(total_steps: int) -> list[int]:
    even = torch.linspace(0, total_steps - 1, _TIMES // 2).round()
    by_logarithm = torch.logspace(0.0, torch.log10(torch.tensor(float(total_steps))).item(), _TIMES // 2).round() - 1
    return sorted({int(t) for t in torch.cat((even, by_logarithm))})
