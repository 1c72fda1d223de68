"""PooledFamily and random numbers: what the shipped families have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from metalr.meta.family import TaskFamily
from metalr.meta.net import Net
from metalr.meta.network_task import NetworkTask
from metalr.meta.split import Split

CLASSES = 10
"""Default number of classes of the classification tasks."""


def pick(generator: torch.Generator, options: Sequence[int]) -> int:
    """Chooses one of the options, with equal probability."""
    return options[int(torch.randint(len(options), (1,), generator=generator))]


def uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Samples uniformly in [low, high]."""
    return torch.empty(tuple(shape)).uniform_(low, high, generator=generator)


def log_uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Samples log-uniformly in [low, high]."""
    return uniform(shape, math.log(low), math.log(high), generator).exp()


def split(inputs: Tensor, targets: Tensor, train: int) -> tuple[Split, Split]:
    """Splits samples (P, N, ...): the first `train` for training, the others for validation."""
    return Split(inputs[:, :train], targets[:, :train]), Split(inputs[:, train:], targets[:, train:])


def corrupt(split: Split, generator: torch.Generator, classes: int = CLASSES) -> Split:
    """Replaces up to 30 % of the labels by random ones, in half of the instances."""
    labels = split.targets
    share = uniform((len(labels), 1), -0.3, 0.3, generator).clamp_min(0.0)
    wrong = torch.rand(labels.shape, generator=generator) < share
    noise = torch.randint(classes, labels.shape, generator=generator)
    return Split(split.inputs, torch.where(wrong, noise, labels))


class PooledFamily(TaskFamily):
    """Samples tasks whose network and batch size are from a pool.

    Attributes:
        pool: (network, batch size), chosen with equal probability.

    Args:
        train_sizes: numbers of training samples, one of which is chosen for a task.
        valid_size: number of validation samples.
    """

    pool: Sequence[tuple[Net, int]]

    def __init__(self, train_sizes: Sequence[int] = (256, 512, 1024), valid_size: int = 192) -> None:
        self.train_sizes = tuple(train_sizes)
        self.valid_size = valid_size

    def sample(self, instances: int, generator: torch.Generator) -> NetworkTask:
        """Draws a network out of the pool, its initial parameters and the data."""
        net, batch_size = self.pool[pick(generator, range(len(self.pool)))]
        train_size = pick(generator, self.train_sizes)
        train, valid = self.data(net, instances, train_size, generator)
        return NetworkTask(net, net.initialise(instances, generator), train, valid, batch_size)

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Training and validation data for the network."""
        raise NotImplementedError
