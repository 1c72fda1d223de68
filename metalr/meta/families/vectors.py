"""Perceptrons on vectors, fresh or fine-tuned, and autoencoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from metalr.core.policy import LRPolicy
from metalr.meta.architectures import MLP
from metalr.meta.families.pool import CLASSES, PooledFamily, corrupt, log_uniform, pick, split, uniform
from metalr.meta.hyperparameters import Hyperparameters
from metalr.meta.net import Net
from metalr.meta.network_runs import NetworkRuns
from metalr.meta.network_task import NetworkTask
from metalr.meta.rollout import Unroll
from metalr.meta.split import Split
from metalr.meta.task import InnerTraining

_INPUTS = 64


class MLPTasks(PooledFamily):
    """Samples perceptrons, shallow to deep, on 64 inputs, with 10 classes or real targets.

    Args:
        sources: out of "teacher" (labels or values of a random network), "values" (values of one, with inputs of
            nearly low rank, less noise and other units), "clusters" (two Gaussians for each class) and "digits"
            (scikit-learn's bundled 8x8 images).
        train_sizes: numbers of training samples, one of which is chosen for a task.
        valid_size: number of validation samples.

    Raises:
        ValueError: for an unknown source, or none.
    """

    pool: Sequence[tuple[Net, int]] = (
        (MLP(depth=0), 32),
        (MLP(width=32, depth=1), 64),
        (MLP(width=16, depth=1, activation="tanh"), 4),
        (MLP(width=32, depth=2), 16),
        (MLP(width=32, depth=2), 128),
        (MLP(width=48, depth=2, norm="batch"), 32),
        (MLP(width=32, depth=3, activation="gelu", norm="layer"), 32),
        (MLP(width=32, depth=4), 32),
        (MLP(width=24, depth=5, residual=True, activation="silu"), 16),
        (MLP(width=24, depth=6, activation="tanh"), 64),
    )

    def __init__(
        self,
        sources: Sequence[str] = ("teacher", "clusters", "digits"),
        train_sizes: Sequence[int] = (96, 256, 512, 1024),
        valid_size: int = 192,
    ) -> None:
        super().__init__(train_sizes, valid_size)
        unknown = set(sources) - set(_SOURCES)
        if unknown or not sources:
            raise ValueError(f"sources={list(sources)}: choose one or more of {', '.join(_SOURCES)}")
        self.sources = tuple(sources)

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples data from one of the sources."""
        source = self.sources[pick(generator, range(len(self.sources)))]
        inputs, targets = _SOURCES[source](instances, train_size + self.valid_size, generator)
        train, valid = split(inputs, targets, train_size)
        return (train if targets.is_floating_point() else corrupt(train, generator)), valid


def _network_outputs(
    instances: int, samples: int, steepest: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Samples inputs whose spectrum falls by a power of up to `steepest`, and the outputs of a random network."""
    spectrum = torch.arange(1, _INPUTS + 1) ** -uniform((instances, 1, 1), 0.0, steepest, generator)
    inputs = torch.randn(instances, samples, _INPUTS, generator=generator) * spectrum
    inputs = inputs / inputs.square().mean((1, 2), keepdim=True).sqrt()
    first = torch.randn(instances, _INPUTS, 24, generator=generator) / _INPUTS**0.5
    last = torch.randn(instances, 24, CLASSES, generator=generator) / 24**0.5
    return inputs, torch.tanh(2.0 * inputs @ first) @ last


def _values(instances: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs, outputs = _network_outputs(instances, samples, 1.5, generator)
    noise = log_uniform((instances, 1, 1), 0.003, 0.3, generator)
    outputs = outputs / outputs.std((1, 2), keepdim=True) + noise * torch.randn(outputs.shape, generator=generator)
    return inputs, outputs * log_uniform((instances, 1, 1), 0.3, 3.0, generator)


def _teacher(instances: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    inputs, outputs = _network_outputs(instances, samples, 1.0, generator)
    if pick(generator, (0, 0, 1)):
        noise = log_uniform((instances, 1, 1), 0.01, 0.5, generator)
        return inputs, outputs / outputs.std() + noise * torch.randn(outputs.shape, generator=generator)
    gumbel = -torch.log(-torch.log(torch.rand(outputs.shape, generator=generator).clamp(1e-9, 1 - 1e-7)))
    return inputs, (outputs + 0.1 * gumbel).argmax(-1)


def _clusters(instances: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    distance = log_uniform((instances, 1, 1), 1.5, 6.0, generator)
    means = torch.randn(instances, 2 * CLASSES, _INPUTS, generator=generator) / _INPUTS**0.5 * distance
    cluster = torch.randint(2 * CLASSES, (instances, samples), generator=generator)
    inputs = means[torch.arange(instances)[:, None], cluster]
    return inputs + torch.randn(inputs.shape, generator=generator) * 0.7, cluster % CLASSES


@cache
def _digits() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("tasks on digits need scikit-learn: pip install scikit-learn") from error
    bunch = load_digits()
    images = torch.tensor(bunch.data, dtype=torch.float32)
    return (images - images.mean()) / images.std(), torch.tensor(bunch.target, dtype=torch.long)


def _real_digits(instances: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    images, labels = _digits()
    if samples > len(images):
        raise ValueError(
            f"train_sizes and valid_size ask for {samples} of the {len(images)} digits: give less, or other sources"
        )
    rows = torch.stack([torch.randperm(len(images), generator=generator)[:samples] for _ in range(instances)])
    scale = log_uniform((instances, 1, 1), 0.3, 1.5, generator)
    return images[rows] * scale, labels[rows]


_SOURCES = {"teacher": _teacher, "values": _values, "clusters": _clusters, "digits": _real_digits}


class AutoencoderTasks(PooledFamily):
    """Samples autoencoders of digits, with a bottleneck. No mixture of meta-training has them: they are held out."""

    pool = ((MLP(width=12, depth=3, outputs=_INPUTS, activation="gelu"), 32),)

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples images, which are inputs and targets."""
        images, _ = _real_digits(instances, train_size + self.valid_size, generator)
        return split(images, images, train_size)


class DropoutTasks(MLPTasks):
    """Samples perceptrons with dropout on the data of `MLPTasks`; they are wider, as is usual with dropout."""

    pool = (
        (MLP(width=64, depth=1, dropout=0.5), 16),
        (MLP(width=48, depth=2, dropout=0.2), 32),
        (MLP(width=48, depth=3, activation="gelu", norm="layer", dropout=0.1), 32),
    )


class LargeBatchTasks(MLPTasks):
    """Samples perceptrons on the data of `MLPTasks`, in batches of 256 and 512: the gradient has little noise."""

    pool = (
        (MLP(width=32, depth=1), 256),
        (MLP(width=32, depth=2), 512),
        (MLP(width=24, depth=3, activation="gelu", norm="layer"), 256),
    )


class FineTuningTasks(MLPTasks):
    """Samples perceptrons that were trained before on a similar task, with turned inputs and two classes swapped.

    Args:
        sources: as of `MLPTasks`.
        train_sizes: numbers of training samples, one of which is chosen for a task.
        valid_size: number of validation samples.
        steps: number of steps of the training before, with Adam at 3e-3 and the cosine schedule.
    """

    pool = ((MLP(width=32, depth=2), 32), (MLP(width=32, depth=3, activation="gelu", norm="layer"), 32))

    def __init__(
        self,
        sources: Sequence[str] = ("teacher", "clusters", "digits"),
        train_sizes: Sequence[int] = (96, 256, 512),
        valid_size: int = 192,
        steps: int = 200,
    ) -> None:
        super().__init__(sources, train_sizes, valid_size)
        self.steps = steps

    def sample(self, instances: int, generator: torch.Generator) -> NetworkTask:
        """Trains on a first task, and turns it into a similar one."""
        task = super().sample(instances, generator)
        hyper = Hyperparameters.of(torch.full((instances, 1), 3e-3), 0.9, 0.999)
        schedule = LRPolicy()  # untrained, it is the reference schedule
        runs = Unroll(task, InnerTraining("adam", hyper, self.steps), evaluations=1)
        with torch.no_grad():
            for _ in range(self.steps):
                runs.advance(schedule.function())
        trained = runs.optimizees
        if not isinstance(trained, NetworkRuns):
            raise TypeError(f"{type(trained).__name__}: fine-tuning begins with networks")
        distance = log_uniform((instances, 1, 1), 0.05, 1.0, generator)
        turn = torch.randn(instances, _INPUTS, _INPUTS, generator=generator) / _INPUTS**0.5
        turn = (torch.eye(_INPUTS) + distance * turn) / (1.0 + distance.square()).sqrt()
        swapped = pick(generator, range(CLASSES - 1))  # this class and the next
        train, valid = (self._neighbour(split, turn, swapped) for split in (task.train, task.valid))
        return replace(task, theta=trained.theta, train=train, valid=valid)

    @staticmethod
    def _neighbour(split: Split, turn: Tensor, swapped: int) -> Split:
        targets = split.targets
        if not targets.is_floating_point():
            other = torch.where(targets == swapped, swapped + 1, swapped)
            targets = torch.where((targets == swapped) | (targets == swapped + 1), other, targets)
        return Split(split.inputs @ turn, targets)
