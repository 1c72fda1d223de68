"""Which states a policy comes to on the tasks that it is meta-trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.meta.distribution import TaskDistribution
from metalr.meta.rollout import rollout

_RUNS, _TIMES, _LEAST = 8, 48, 2000


def visited_states(policy: LRPolicy, distribution: TaskDistribution, draws: int = 48) -> Tensor:
    """Features along runs of the policy on tasks that its meta-training has not drawn, all features (N, F).

    Half of a run's times are evenly spaced and half are spaced by the logarithm: what is seen in the first steps is
    seen nowhere else. Runs on steps that are not finite are left out.

    Args:
        policy: that sets the rates.
        distribution: of the tasks; draws with negative numbers are made.
        draws: of 8 runs each, of which 48 steps or fewer are kept; more where these give fewer than 2,000 states.
    """
    function = policy.function()
    states: list[Tensor] = []
    index = 0
    while index < draws or sum(map(len, states)) < _LEAST:
        draw = distribution.sample(-1 - index, _RUNS, policy.anytime)
        task = draw.task.to(policy.columns.device)
        runs = rollout(task, draw.inner, function, evaluations=1, record=True)
        for t in _times(draw.inner.total_steps):
            states.append(runs.records[t].features[runs.records[t].finite])
        index += 1
    return torch.cat(states)


def _times(total_steps: int) -> list[int]:
    even = torch.linspace(0, total_steps - 1, _TIMES // 2).round()
    by_logarithm = torch.logspace(0.0, torch.log10(torch.tensor(float(total_steps))).item(), _TIMES // 2).round() - 1
    return sorted({int(t) for t in torch.cat((even, by_logarithm))})
