"""Pretraining: how the trained starts are made, many networks of a kind side by side."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from metalr.meta.architectures import IGNORED, MLP, ConvNet, Transformer
from metalr.meta.distribution import mix_seed
from metalr.meta.hyperparameters import Hyperparameters
from metalr.meta.languages import Language, moods
from metalr.meta.net import Net
from metalr.meta.network_runs import NetworkRuns
from metalr.meta.network_task import NetworkTask
from metalr.meta.scenes import Scenes
from metalr.meta.split import Split
from metalr.meta.starts import Starts
from metalr.meta.task import InnerTraining

_CHUNK = 250
"""Steps between fresh data."""

_WARMUP = 0.08

Progress = Callable[[int], Any]
"""Is given the number of steps done since it was called last."""


@dataclass(frozen=True)
class Recipe(ABC):
    """Describes how the starts of one network are made.

    Attributes:
        name: of the file.
        net: the network.
        instances: how many, each in a world of its own.
        steps: of Adam, with a warm-up and then linear decay.
        lr: highest rate.
        batch_size: samples of a step and network.
        seed: of everything that is drawn.
    """

    name: str
    net: Net
    instances: int = 6
    steps: int = 800
    lr: float = 3e-3
    batch_size: int = 64
    seed: int = 0

    kind: ClassVar[str]

    @abstractmethod
    def begin(self, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Callable[[int], Split]]:
        """Returns a world's tensors, initial parameters (P, n), and what gives so many fresh samples of that world."""

    def describe(self) -> dict[str, Any]:
        """Describes all that decides what the recipe makes, as JSON."""
        fields = {key: value for key, value in asdict(self).items() if key != "net"}
        return {"kind": self.kind, "net": repr(self.net), **fields}

    def make(self, progress: Progress) -> tuple[Starts, dict[str, Any]]:
        """Trains the networks.

        Returns:
            The starts, and the facts for the manifest: seconds of the processor, and each network's loss on fresh
            samples before and after.
        """
        began = time.process_time()
        generator = torch.Generator().manual_seed(mix_seed(self.seed, self.name))
        world, theta, samples = self.begin(generator)
        adam = Hyperparameters.of(torch.full((self.instances, 1), self.lr), 0.9, 0.98)
        runs: NetworkRuns | None = None
        checks = []
        for first in range(0, self.steps, _CHUNK):
            train, valid = samples(self.batch_size * _CHUNK // 4), samples(256)
            task = NetworkTask(self.net, theta, train, valid, self.batch_size)
            inner = InnerTraining("adam", adam, self.steps, batch_seed=first)
            following = task.start(inner, copies=1, compiled=False)
            if runs is not None:
                following.theta, following.buffers, following.step = runs.theta, runs.buffers, runs.step
            else:
                checks.append(following.validate())
            runs = following
            count = min(_CHUNK, self.steps - first)
            for step in range(first, first + count):
                runs.measure()
                runs.update(torch.full((self.instances,), self.lr * self._share(step)))
                progress(1)
        if runs is None:
            raise ValueError(f"steps={self.steps} of {self.name}: give 1 or more")
        checks.append(runs.validate())
        before, after = (check.tolist() for check in checks)
        facts = {"seconds": round(time.process_time() - began, 1), "loss_before": before, "loss_after": after}
        return Starts(self.name, self.net, runs.theta, world), facts

    def _share(self, step: int) -> float:
        """Computes the share of the highest rate: a linear warm-up, and a linear decay to zero."""
        warm = max(1.0, _WARMUP * self.steps)
        return min((step + 1) / warm, (self.steps - step) / max(1.0, self.steps - warm))


@dataclass(frozen=True)
class LanguageRecipe(Recipe):
    """Trains by masked language modeling on a synthetic language, from word vectors of its text.

    The embeddings start as the word vectors of Levy and Goldberg (2014): the singular vectors of the pointwise mutual
    information of words in a sentence. From random ones it takes some ten times as many steps to learn as much.

    Attributes:
        topics: of the language.
        hidden: share of the words that are hidden.
    """

    topics: int = 4
    hidden: float = 0.3

    kind: ClassVar[str] = "language"

    def begin(self, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Callable[[int], Split]]:
        """Samples a language for each network."""
        net = self.net
        if not isinstance(net, Transformer) or net.task != "masked":
            raise ValueError(f"net={net} of {self.name}: give a Transformer with task='masked'")
        language = Language.sample(self.instances, net.vocabulary, self.topics, generator)

        def sentences(count: int) -> Tensor:
            topic = torch.randint(self.topics, (self.instances, count), generator=generator)
            return language.write(topic, moods((self.instances, count), generator), net.length, generator)

        def samples(count: int) -> Split:
            words = sentences(count)
            hidden = torch.rand(words.shape, generator=generator) < self.hidden
            return Split(torch.where(hidden, net.vocabulary, words), torch.where(hidden, words, IGNORED))

        theta = net.initialise(self.instances, generator)
        params = torch.func.vmap(net.unflatten)(theta)  # views
        vectors = word_vectors(sentences(20_000), net.vocabulary, net.width)
        params["token"][:, : net.vocabulary] = 0.3 * vectors
        params["position"].mul_(0.1 / params["position"].std())
        params["head"].copy_(0.3 * vectors.mT)
        return language.tensors(), theta, samples


@dataclass(frozen=True)
class ScenesRecipe(Recipe):
    """Trains to classify all pairs of a shape and a texture, from fresh images at each step.

    Attributes:
        shapes: of a world.
        textures: of a world; the network tells shapes * textures classes.
    """

    shapes: int = 12
    textures: int = 6

    kind: ClassVar[str] = "scenes"

    def begin(self, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor, Callable[[int], Split]]:
        """Samples a world for each network."""
        net = self.net
        if not isinstance(net, ConvNet | MLP) or net.outputs != self.shapes * self.textures:
            raise ValueError(
                f"net={net} of {self.name}: give a ConvNet or an MLP with {self.shapes * self.textures} outputs"
            )
        scenes = Scenes.sample(self.instances, self.shapes, self.textures, generator)

        def samples(count: int) -> Split:
            shape = torch.randint(self.shapes, (self.instances, count), generator=generator)
            texture = torch.randint(self.textures, (self.instances, count), generator=generator)
            images = scenes.render(shape, texture, generator)
            return Split(as_inputs(net, images), shape * self.textures + texture)

        world = {"shape": scenes.shape, "texture": scenes.texture, "noise": scenes.noise}
        return world, net.initialise(self.instances, generator), samples


def as_inputs(net: Net, images: Tensor) -> Tensor:
    """Shapes images (P, N, side, side) as the network takes them."""
    return images.unsqueeze(-1) if isinstance(net, ConvNet) else images.flatten(2)


def word_vectors(sentences: Tensor, vocabulary: int, width: int) -> Tensor:
    """Computes word vectors with a root mean square of 1, (P, vocabulary, width), from sentences (P, N, L)."""
    bags = sentences.new_zeros((*sentences.shape[:2], vocabulary), dtype=torch.float32)
    bags.scatter_add_(2, sentences, torch.ones(sentences.shape))
    counts = bags.mT @ bags - torch.diag_embed(bags.sum(1))
    words = counts.sum(1)
    information = ((counts + 1.0) * words.sum(1)[:, None, None] / (words[:, :, None] * words[:, None] + 1.0)).log()
    left, values, _ = torch.linalg.svd(information)
    vectors = left[..., :width] * values[:, None, :width].sqrt()
    normalised: Tensor = vectors / vectors.square().mean((1, 2), keepdim=True).sqrt()
    return normalised


def _bert(name: str, width: int, layers: int, norm: str = "post", heads: int = 2, **rest: Any) -> LanguageRecipe:
    net = Transformer(256, 12, width, layers, heads, norm, "masked")
    return LanguageRecipe(name, net, **rest)


DEFAULT: tuple[Recipe, ...] = (
    _bert("post_24x4", 24, 4, instances=8),
    _bert("post_32x5", 32, 5, instances=8),
    _bert("post_48x6", 48, 6, heads=4, instances=4, lr=2e-3),
    _bert("pre_32x4", 32, 4, "pre", instances=6),
    _bert("pre_24x2", 24, 2, "pre", instances=6),
    ScenesRecipe("conv", ConvNet(widths=(12, 24), outputs=72), lr=5e-3),
    ScenesRecipe("conv_batch_norm", ConvNet(widths=(12, 24), outputs=72, norm="batch"), lr=5e-3),
    ScenesRecipe("perceptron", MLP(width=64, depth=3, outputs=72), steps=1500),
    ScenesRecipe("perceptron_layer_norm", MLP(width=64, depth=4, outputs=72, norm="layer"), steps=1500),
)
"""The starts that the families sample from: half an hour of one core at most."""

TINY: tuple[Recipe, ...] = (
    LanguageRecipe("tiny_post", Transformer(96, 8, 16, 2, 2, "post", "masked"), 2, 150, topics=2),
    ScenesRecipe("tiny_conv", ConvNet(widths=(8, 8), outputs=12), 2, 60, 1e-2, shapes=4, textures=3),
    ScenesRecipe("tiny_perceptron", MLP(width=32, outputs=12), 2, 60, 1e-2, shapes=4, textures=3),
)
"""Starts for tests, made in seconds."""
