"""RegressionTasks: perceptrons that learn a few columns' values in the values' own unit."""

from __future__ import annotations

import torch

from metalr.meta.architectures import MLP
from metalr.meta.families.pool import PooledFamily, log_uniform, split, uniform
from metalr.meta.net import Net
from metalr.meta.split import Split

_INPUTS, _TERMS = 8, 6


class RegressionTasks(PooledFamily):
    """Samples perceptrons on 8 columns with one real target, whose size and mean are not normalised.

    The target is a sum of waves of random projections, 1 to 10 in size about a mean of as much, with little noise: the
    weights have far to go, and Adam is best at rates of 0.03 to 0.1. Batches have up to 512 samples.
    """

    pool = (
        (MLP(inputs=_INPUTS, width=16, depth=1, outputs=1, activation="tanh"), 32),
        (MLP(inputs=_INPUTS, width=32, depth=2, outputs=1, activation="tanh"), 128),
        (MLP(inputs=_INPUTS, width=32, depth=1, outputs=1), 512),
        (MLP(inputs=_INPUTS, depth=0, outputs=1), 16),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples columns and the values of a random function."""
        samples = train_size + self.valid_size
        inputs = torch.randn(instances, samples, _INPUTS, generator=generator)
        directions = torch.randn(instances, _INPUTS, _TERMS, generator=generator) / _INPUTS**0.5
        phases = uniform((instances, 1, _TERMS), 0.0, 3.0, generator)
        values = torch.sin(1.5 * inputs @ directions + phases).sum(-1, keepdim=True)
        values = (values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True)
        noise = log_uniform((instances, 1, 1), 0.03, 0.3, generator)
        values = values + noise * torch.randn(values.shape, generator=generator)
        mean = uniform((instances, 1, 1), -1.0, 1.0, generator)
        size = log_uniform((instances, 1, 1), 1.0, 10.0, generator)
        return split(inputs, size * (values + mean), train_size)
