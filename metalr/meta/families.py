"""The task families that ship: what the inner runs of meta-training train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from metalr.meta.nets import MLP, ConvNet, Net, Quadratic, Transformer
from metalr.meta.task import Split, Task, TaskFamily

_CLASSES = 10
_INPUTS = 64


def _pick(generator: torch.Generator, options: Sequence[int]) -> int:
    return options[int(torch.randint(len(options), (1,), generator=generator))]


def _uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.empty(tuple(shape)).uniform_(low, high, generator=generator)


def _log_uniform(shape: Sequence[int], low: float, high: float, generator: torch.Generator) -> Tensor:
    return _uniform(shape, math.log(low), math.log(high), generator).exp()


def _split(inputs: Tensor, targets: Tensor, train: int) -> tuple[Split, Split]:
    return Split(inputs[:, :train], targets[:, :train]), Split(inputs[:, train:], targets[:, train:])


def _corrupt(split: Split, generator: torch.Generator) -> Split:
    """Random labels for up to 30 % of the samples, in half of the instances."""
    labels = split.targets
    share = _uniform((len(labels), 1), -0.3, 0.3, generator).clamp_min(0.0)
    wrong = torch.rand(labels.shape, generator=generator) < share
    noise = torch.randint(_CLASSES, labels.shape, generator=generator)
    return Split(split.inputs, torch.where(wrong, noise, labels))


class _PooledFamily(TaskFamily):
    """A family whose networks and batch sizes come from a pool.

    Args:
        pool: (network, batch size), each as likely as another.
        train_sizes: numbers of training samples, one drawn for a task.
        valid_size: number of validation samples.
    """

    pool: Sequence[tuple[Net, int]]

    def __init__(self, train_sizes: Sequence[int] = (256, 512, 1024), valid_size: int = 192) -> None:
        self.train_sizes = tuple(train_sizes)
        self.valid_size = valid_size

    def sample(self, instances: int, generator: torch.Generator) -> Task:
        """Draws a network out of the pool, its initial parameters and the data."""
        net, batch_size = self.pool[_pick(generator, range(len(self.pool)))]
        train_size = _pick(generator, self.train_sizes)
        train, valid = self.data(net, instances, train_size, generator)
        return Task(net, net.initialise(instances, generator), train, valid, batch_size)

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Training and validation data for the network."""
        raise NotImplementedError


class MLPTasks(_PooledFamily):
    """Perceptrons, shallow to deep, on teachers, clusters or digits: 64 inputs, 10 classes or real targets.

    Args:
        sources: out of "teacher" (labels or values of a random network), "clusters" (a Gaussian for each class)
            and "digits" (scikit-learn's bundled 8x8 images).
        train_sizes: numbers of training samples, one drawn for a task.
        valid_size: number of validation samples.
    """

    pool = (
        (MLP(depth=0), 32),
        (MLP(width=32, depth=1), 64),
        (MLP(width=16, depth=1, activation="tanh"), 8),
        (MLP(width=32, depth=2), 16),
        (MLP(width=48, depth=2, norm="batch"), 32),
        (MLP(width=32, depth=3, activation="gelu", norm="layer"), 32),
        (MLP(width=32, depth=4), 32),
        (MLP(width=24, depth=5, residual=True, activation="silu"), 16),
    )

    def __init__(
        self,
        sources: Sequence[str] = ("teacher", "clusters", "digits"),
        train_sizes: Sequence[int] = (256, 512, 1024),
        valid_size: int = 192,
    ) -> None:
        super().__init__(train_sizes, valid_size)
        unknown = set(sources) - set(_SOURCES)
        if unknown or not sources:
            raise ValueError(f"sources={list(sources)}: choose one or more of {', '.join(_SOURCES)}")
        self.sources = tuple(sources)

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """From one of the sources."""
        source = self.sources[_pick(generator, range(len(self.sources)))]
        inputs, targets = _SOURCES[source](instances, train_size + self.valid_size, generator)
        train, valid = _split(inputs, targets, train_size)
        return (train if targets.is_floating_point() else _corrupt(train, generator)), valid


def _teacher(instances: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    spectrum = torch.arange(1, _INPUTS + 1) ** -_uniform((instances, 1, 1), 0.0, 1.0, generator)
    inputs = torch.randn(instances, samples, _INPUTS, generator=generator) * spectrum
    inputs = inputs / inputs.square().mean((1, 2), keepdim=True).sqrt()
    first = torch.randn(instances, _INPUTS, 24, generator=generator) / _INPUTS**0.5
    last = torch.randn(instances, 24, _CLASSES, generator=generator) / 24**0.5
    outputs = torch.tanh(2.0 * inputs @ first) @ last
    if _pick(generator, (0, 0, 1)):
        noise = _log_uniform((instances, 1, 1), 0.01, 0.5, generator)
        return inputs, outputs / outputs.std() + noise * torch.randn(outputs.shape, generator=generator)
    gumbel = -torch.log(-torch.log(torch.rand(outputs.shape, generator=generator).clamp(1e-9, 1 - 1e-7)))
    return inputs, (outputs + 0.1 * gumbel).argmax(-1)


def _clusters(instances: int, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    distance = _log_uniform((instances, 1, 1), 1.5, 6.0, generator)
    means = torch.randn(instances, 2 * _CLASSES, _INPUTS, generator=generator) / _INPUTS**0.5 * distance
    cluster = torch.randint(2 * _CLASSES, (instances, samples), generator=generator)
    inputs = means[torch.arange(instances)[:, None], cluster]
    return inputs + torch.randn(inputs.shape, generator=generator) * 0.7, cluster % _CLASSES


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
    rows = torch.stack([torch.randperm(len(images), generator=generator)[:samples] for _ in range(instances)])
    scale = _log_uniform((instances, 1, 1), 0.3, 1.5, generator)
    return images[rows] * scale, labels[rows]


_SOURCES = {"teacher": _teacher, "clusters": _clusters, "digits": _real_digits}


class AutoencoderTasks(_PooledFamily):
    """Autoencoders on digits, with a bottleneck. Not drawn in meta-training: a kind that is held out."""

    pool = ((MLP(width=12, depth=3, outputs=_INPUTS, activation="gelu"), 32),)

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """The images are inputs and targets."""
        images, _ = _real_digits(instances, train_size + self.valid_size, generator)
        return _split(images, images, train_size)


class ConvNetTasks(_PooledFamily):
    """Convnets on synthetic 8x8 images: smooth templates, two a class, shifted, scaled in contrast, with noise."""

    pool = (
        (ConvNet(widths=(8, 16)), 32),
        (ConvNet(widths=(4, 8)), 64),
        (ConvNet(widths=(8, 16), pool="mean"), 16),
        (ConvNet(widths=(8, 8), norm="batch"), 32),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Templates and the images made from them."""
        samples = train_size + self.valid_size
        coarse = torch.randn(instances, 2 * _CLASSES, 5, 5, generator=generator)
        templates = F.interpolate(coarse, size=(10, 10), mode="bicubic", align_corners=True)
        which = torch.randint(2 * _CLASSES, (instances, samples), generator=generator)
        corner = torch.randint(3, (2, instances, samples, 1, 1), generator=generator)
        rows = corner[0] + torch.arange(8)[:, None]
        columns = corner[1] + torch.arange(8)
        images = templates[torch.arange(instances)[:, None, None, None], which[..., None, None], rows, columns]
        images = images * _uniform((instances, samples, 1, 1), 0.5, 1.5, generator)
        noise = _log_uniform((instances, 1, 1, 1), 0.1, 1.0, generator)
        images = (images + noise * torch.randn(images.shape, generator=generator)).unsqueeze(-1)
        train, valid = _split(images, which % _CLASSES, train_size)
        return _corrupt(train, generator), valid


class TransformerTasks(_PooledFamily):
    """Tiny causal transformers on random Markov chains in which some tokens repeat what came four before."""

    pool = (
        (Transformer(), 16),
        (Transformer(width=24, layers=2, heads=2, length=8), 16),
        (Transformer(vocabulary=24, width=16, layers=2, length=8), 32),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Sequences of the chain."""
        if not isinstance(net, Transformer):
            raise TypeError(f"net={net}: transformer tasks need a Transformer")
        samples, vocabulary = train_size + self.valid_size, net.vocabulary
        sharpness = _log_uniform((instances, 1, 1), 1.0, 4.0, generator)
        chain = (sharpness * torch.randn(instances, vocabulary, vocabulary, generator=generator)).softmax(-1)
        copy = _uniform((instances, 1), 0.0, 0.6, generator)
        tokens = [torch.randint(vocabulary, (instances, samples), generator=generator)]
        rows = torch.arange(instances)[:, None]
        for position in range(net.length):
            edges = chain[rows, tokens[-1]].cumsum(-1)
            draw = torch.rand(instances, samples, 1, generator=generator)
            following = (draw > edges).sum(-1).clamp_max(vocabulary - 1)
            if position >= 3:
                repeated = torch.rand(instances, samples, generator=generator) < copy
                following = torch.where(repeated, tokens[position - 3], following)
            tokens.append(following)
        sequences = torch.stack(tokens, dim=-1)
        return _split(sequences, torch.zeros(instances, samples), train_size)


class QuadraticTasks(_PooledFamily):
    """Noisy quadratics with condition numbers from 10 to 10,000."""

    pool = ((Quadratic(48), 8), (Quadratic(96), 1))

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Curvatures, log-uniform within the condition number, and noisy centres."""
        samples = train_size + self.valid_size
        condition = _log_uniform((instances, 1), 10.0, 1e4, generator)
        curvature = condition ** -torch.rand(instances, net.size, generator=generator)
        curvature = curvature * _log_uniform((instances, 1), 0.1, 10.0, generator)
        noise = _log_uniform((instances, 1, 1), 0.01, 1.0, generator)
        optimum = torch.randn(instances, 1, net.size, generator=generator)
        centres = optimum + noise * torch.randn(instances, samples, net.size, generator=generator)
        inputs = torch.stack((curvature[:, None].expand_as(centres), centres), dim=2)
        return _split(inputs, torch.zeros(instances, samples), train_size)
