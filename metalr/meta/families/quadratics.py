"""QuadraticTasks: noisy quadratics."""

from __future__ import annotations

import torch

from metalr.meta.architectures import Quadratic
from metalr.meta.families.pool import PooledFamily, log_uniform, split
from metalr.meta.net import Net
from metalr.meta.split import Split


class QuadraticTasks(PooledFamily):
    """Samples noisy quadratics with condition numbers from 10 to 10,000."""

    pool = ((Quadratic(48), 8), (Quadratic(96), 1))

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples curvatures, log-uniform within the condition number, and noisy centres."""
        samples = train_size + self.valid_size
        condition = log_uniform((instances, 1), 10.0, 1e4, generator)
        curvature = condition ** -torch.rand(instances, net.size, generator=generator)
        curvature = curvature * log_uniform((instances, 1), 0.1, 10.0, generator)
        noise = log_uniform((instances, 1, 1), 0.01, 1.0, generator)
        optimum = torch.randn(instances, 1, net.size, generator=generator)
        centres = optimum + noise * torch.randn(instances, samples, net.size, generator=generator)
        inputs = torch.stack((curvature[:, None].expand_as(centres), centres), dim=2)
        return split(inputs, torch.zeros(instances, samples), train_size)
