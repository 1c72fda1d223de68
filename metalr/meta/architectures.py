"""Small networks as pure loss functions of one network's parameters and one batch.

Each is a frozen, hashable description. `loss` is written for a single network and batched over runs with
`torch.func.vmap`; being hashable, a description can key a cache of compiled steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

Params = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]

IGNORED = -100
"""Target of a token that a masked language model is not asked for, as `cross_entropy` has it."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}


class Net(ABC):
    """A network: its parameters' shapes, its initialiser, its loss.

    Parameters of a run lie in one flat vector, so that an optimizer and the norms are single operations.
    """

    @property
    @abstractmethod
    def shapes(self) -> Shapes:
        """Shape of each parameter by name; a matrix is (in, out), and a one-dimensional one starts at zero."""

    @abstractmethod
    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of one batch, shape (), positive."""

    @property
    def dropout_units(self) -> int:
        """Units that `training_loss` drops at random, for each sample; 0 without dropout."""
        return 0

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """`loss` as training sees it: with dropout, where the network has any.

        Args:
            params: of one network.
            inputs: of one batch.
            targets: of one batch.
            noise: uniform in [0, 1), (B, dropout_units): a unit is dropped where it is below the rate of dropout.
        """
        return self.loss(params, inputs, targets)

    @cached_property
    def size(self) -> int:
        """Number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def frozen_shapes(self) -> Shapes:
        """Shape by name of each tensor that a run has of its own and does not train; none in most networks."""
        return {}

    def unflatten(self, theta: Tensor) -> Params:
        """Views of a flat vector of all trained tensors and then the frozen ones, shape (size + frozen,)."""
        shapes = self.shapes | self.frozen_shapes
        pieces = torch.split(theta, [math.prod(shape) for shape in shapes.values()])
        return {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}

    def flat_loss(self, theta: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """`loss` of a flat vector of parameters."""
        return self.loss(self.unflatten(theta), inputs, targets)

    def flat_training_loss(self, theta: Tensor, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """`training_loss` of a flat vector of parameters."""
        return self.training_loss(self.unflatten(theta), inputs, targets, noise)

    def initialise(self, runs: int, generator: torch.Generator) -> Tensor:
        """He-normal or torch's own uniform initial weights, a gain of 0.7 to 1.4, drawn for each run: (runs, size)."""
        gain = torch.empty(runs, 1).uniform_(math.log(0.7), math.log(1.4), generator=generator).exp()
        he = torch.rand(runs, 1, generator=generator) < 0.5
        pieces = []
        for shape in self.shapes.values():
            count = math.prod(shape)
            if len(shape) == 1:
                pieces.append(torch.zeros(runs, count))
                continue
            fan_in = math.prod(shape[:-1])
            normal = torch.randn(runs, count, generator=generator) * (2.0 / fan_in) ** 0.5
            uniform = (2.0 * torch.rand(runs, count, generator=generator) - 1.0) * (1.0 / fan_in) ** 0.5
            pieces.append(gain * torch.where(he, normal, uniform))
        return torch.cat(pieces, dim=1)


def _normalise(x: Tensor, dim: int) -> Tensor:
    centred = x - x.mean(dim, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim, keepdim=True) + 1e-5)


_NARROW = 16
"""Columns below which MKL's batched product takes two to four times as long as that of the transposes."""


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """(N, in) times (in, out)."""
    return x @ weight if weight.shape[-1] >= _NARROW else (weight.mT @ x.mT).mT


def _dropped(x: Tensor, noise: Tensor | None, start: int, rate: float) -> Tensor:
    """Values (B, ...) of which each is dropped where its noise is below the rate; kept ones are scaled up.

    Args:
        x: the values.
        noise: of all of a network's units, (B, units), or None for evaluation.
        start: first of the values' units.
        rate: of dropout.
    """
    if noise is None or rate == 0.0:
        return x
    own = noise[:, start : start + x[0].numel()].view(x.shape)
    return x * (own >= rate) / (1.0 - rate)


@dataclass(frozen=True)
class MLP(Net):
    """Perceptron on vectors: cross entropy for integer targets (B,), mean squared error for real ones (B, outputs).

    Attributes:
        depth: hidden layers; 0 is logistic or linear regression.
        norm: "none", "layer" or "batch" (by the batch's own statistics) before each activation.
        dropout: rate of dropout after each activation.
    """

    inputs: int = 64
    width: int = 32
    depth: int = 2
    outputs: int = 10
    activation: str = "relu"
    norm: str = "none"
    residual: bool = False
    dropout: float = 0.0

    @property
    def shapes(self) -> Shapes:
        """Weights (in, out) and biases, input to output."""
        widths = [self.inputs, *[self.width] * self.depth, self.outputs]
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise(widths)):
            shapes[f"w{i}"], shapes[f"b{i}"] = (a, b), (b,)
        return shapes

    @property
    def dropout_units(self) -> int:
        """The hidden layers'."""
        return self.depth * self.width if self.dropout else 0

    def logits(self, params: Params, inputs: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, inputs) -> (B, outputs); with dropout where there is noise for it."""
        x = inputs
        for i in range(self.depth):
            h = x @ params[f"w{i}"] + params[f"b{i}"]
            if self.norm != "none":
                h = _normalise(h, -1 if self.norm == "layer" else 0)
            h = _dropped(_ACTIVATIONS[self.activation](h), noise, i * self.width, self.dropout)
            x = x + h if self.residual and i > 0 else h
        return _product(x, params[f"w{self.depth}"]) + params[f"b{self.depth}"]

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy or mean squared error."""
        return self._criterion(self.logits(params, inputs), targets)

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """The same with dropout."""
        return self._criterion(self.logits(params, inputs, noise), targets)

    @staticmethod
    def _criterion(logits: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return (logits - targets).square().mean()
        return F.cross_entropy(logits, targets)


@dataclass(frozen=True)
class ConvNet(Net):
    """3x3 convolutions, each followed by 2x2 pooling, and a linear classifier, on images (B, side, side, channels).

    Convolutions are written as one matrix product over patches: vmapped convolutions with a kernel for each run
    become grouped ones, which are slow.
    """

    side: int = 8
    channels: int = 1
    widths: tuple[int, ...] = (8, 16)
    outputs: int = 10
    norm: str = "none"
    pool: str = "max"

    @property
    def shapes(self) -> Shapes:
        """Kernels (3 * 3 * in, out), biases, and the classifier."""
        shapes: Shapes = {}
        channels, side = self.channels, self.side
        for i, width in enumerate(self.widths):
            shapes[f"k{i}"], shapes[f"c{i}"] = (9 * channels, width), (width,)
            channels, side = width, side // 2
        shapes["w"], shapes["b"] = (channels * side * side, self.outputs), (self.outputs,)
        return shapes

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy."""
        x = inputs
        for i in range(len(self.widths)):
            batch, side, _, channels = x.shape
            padded = F.pad(x, (0, 0, 1, 1, 1, 1))
            shifts = [padded[:, a : a + side, b : b + side] for a in range(3) for b in range(3)]
            patches = torch.cat(shifts, dim=-1).reshape(batch * side * side, 9 * channels)
            h = _product(patches, params[f"k{i}"]) + params[f"c{i}"]
            if self.norm == "batch":
                h = _normalise(h, 0)
            h = h.relu().view(batch, side // 2, 2, side // 2, 2, -1)
            x = h.amax(dim=(2, 4)) if self.pool == "max" else h.mean(dim=(2, 4))
        return F.cross_entropy(_product(x.flatten(1), params["w"]) + params["b"], targets)


@dataclass(frozen=True)
class Transformer(Net):
    """Transformer on tokens, for one of three tasks.

    - "causal": predicts each next token of (B, L + 1) tokens; it does not use the targets;
    - "masked": predicts those of (B, L) tokens whose targets are not `IGNORED`; one token beyond the vocabulary
      stands for what is hidden;
    - "classify": tells the class (B,) of (B, L) tokens, from the mean of the last layer.

    Attributes:
        norm: where layer norm stands: "pre" (before each sublayer, GPT-2), "post" (after, BERT), or "none".
        task: one of the three.
        classes: number of classes, of a classifier.
        dropout: rate of dropout after the embeddings and each sublayer.
    """

    vocabulary: int = 16
    length: int = 12
    width: int = 16
    layers: int = 1
    heads: int = 2
    norm: str = "pre"
    task: str = "causal"
    classes: int = 0
    dropout: float = 0.0

    @property
    def shapes(self) -> Shapes:
        """Embeddings, and for each block attention and feed-forward weights."""
        w = self.width
        shapes: Shapes = {"token": (self._tokens, w), "position": (self.length, w)}
        for i in range(self.layers):
            shapes |= {f"qkv{i}": (w, 3 * w), f"out{i}": (w, w)}
            shapes |= {f"up{i}": (w, 2 * w), f"ub{i}": (2 * w,), f"down{i}": (2 * w, w), f"db{i}": (w,)}
        return shapes | {"head": (w, self.classes or self.vocabulary)}

    @property
    def _tokens(self) -> int:
        return self.vocabulary + (self.task == "masked")

    @property
    def dropout_units(self) -> int:
        """Those of the embeddings and of two sublayers a block."""
        return (1 + 2 * self.layers) * self.length * self.width if self.dropout else 0

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy of the next token, of the hidden ones, or of the class."""
        return self._loss(params, inputs, targets, None)

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """The same with dropout."""
        return self._loss(params, inputs, targets, noise)

    def _loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor | None) -> Tensor:
        causal = self.task == "causal"
        tokens = inputs[:, :-1] if causal else inputs
        x = F.embedding(tokens, params["token"]) + params["position"]
        places = iter(range(0, self.dropout_units, self.length * self.width))
        x = self._dropped(self._normalised(x, "post"), noise, places)
        mask = torch.full((self.length, self.length), -1e9 if causal else 0.0, device=x.device).triu(1)
        for i in range(self.layers):
            attended = self._attend(params, i, self._normalised(x, "pre"), mask)
            x = self._normalised(x + self._dropped(attended, noise, places), "post")
            hidden = F.gelu(self._normalised(x, "pre") @ params[f"up{i}"] + params[f"ub{i}"])
            hidden = hidden @ params[f"down{i}"] + params[f"db{i}"]
            x = self._normalised(x + self._dropped(hidden, noise, places), "post")
        x = self._normalised(x, "pre")
        if self.task == "classify":
            return F.cross_entropy(_product(x.mean(1), params["head"]), targets)
        following = inputs[:, 1:] if causal else targets
        return F.cross_entropy((x @ params["head"]).flatten(0, 1), following.flatten(), ignore_index=IGNORED)

    def _dropped(self, x: Tensor, noise: Tensor | None, places: Iterator[int]) -> Tensor:
        return _dropped(x, noise, next(places), self.dropout) if self.dropout else x

    def _normalised(self, x: Tensor, place: str) -> Tensor:
        return _normalise(x, -1) if self.norm == place else x

    def _attend(self, params: Params, i: int, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = (x @ params[f"qkv{i}"]).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5 + mask
        mixed: Tensor = scores.softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(batch, length, width) @ params[f"out{i}"]

    def initialise(self, runs: int, generator: torch.Generator) -> Tensor:
        """As for any network, but embeddings of size about 0.02 to 1, drawn for each run."""
        theta = super().initialise(runs, generator)
        rows = (self._tokens + self.length) * self.width
        scale = torch.empty(runs, 1).uniform_(math.log(0.02), 0.0, generator=generator).exp()
        theta[:, :rows] = torch.randn(runs, rows, generator=generator) * scale
        return theta


@dataclass(frozen=True)
class TabularNet(Net):
    """Embeddings of categorical columns beside numbers, then a perceptron: (B, columns + numbers) real inputs.

    The first `columns` inputs hold the categories' numbers.
    """

    columns: int = 5
    cardinality: int = 20
    embedding: int = 4
    numbers: int = 6
    width: int = 32
    depth: int = 2
    outputs: int = 2

    @property
    def _body(self) -> MLP:
        return MLP(self.columns * self.embedding + self.numbers, self.width, self.depth, self.outputs)

    @property
    def shapes(self) -> Shapes:
        """One table for all columns, and the perceptron's."""
        return {"table": (self.columns * self.cardinality, self.embedding)} | self._body.shapes

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy."""
        offsets = torch.arange(self.columns, device=inputs.device) * self.cardinality
        rows = inputs[:, : self.columns].long() + offsets
        embedded = F.embedding(rows, params["table"]).flatten(1)
        return self._body.loss(params, torch.cat((embedded, inputs[:, self.columns :]), dim=1), targets)

    def initialise(self, runs: int, generator: torch.Generator) -> Tensor:
        """As for any network, but embeddings of size about 0.02 to 1, drawn for each run."""
        theta = super().initialise(runs, generator)
        count = self.columns * self.cardinality * self.embedding
        scale = torch.empty(runs, 1).uniform_(math.log(0.02), 0.0, generator=generator).exp()
        theta[:, :count] = torch.randn(runs, count, generator=generator) * scale
        return theta


@dataclass(frozen=True)
class Quadratic(Net):
    """Noisy quadratic 0.5 sum_i h_i (w_i - x_i)^2, mean over the batch; inputs (B, 2, size) hold h and x."""

    dimension: int = 48

    @property
    def shapes(self) -> Shapes:
        """One matrix, so that it starts at random values."""
        return {"w": (1, self.dimension)}

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """The quadratic; targets are not used."""
        curvature, centre = inputs[:, 0], inputs[:, 1]
        return 0.5 * (curvature * (params["w"] - centre).square()).sum(-1).mean()
