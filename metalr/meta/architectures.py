"""Architectures of inner runs: the small networks of the shipped task families."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from metalr.meta.net import Net, Params, Shapes

IGNORED = -100
"""Target of a token that does not count in the loss of a masked language model, as `cross_entropy` has it."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "silu": F.silu,
}


def _normalise(x: Tensor, dim: int) -> Tensor:
    centred = x - x.mean(dim, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim, keepdim=True) + 1e-5)


_NARROW = 16
"""Columns below which MKL's batched product takes two to four times as long as that of the transposes."""


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiplies (N, in) by (in, out)."""
    return x @ weight if weight.shape[-1] >= _NARROW else (weight.mT @ x.mT).mT


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Computes the mean cross entropy of logits (N, C) and classes (N,), of which `IGNORED` ones do not count.

    The classes are compared instead of indexed: the derivative of an index is a scatter, which the compiler does not
    vectorise.
    """
    at_target = targets[:, None] == torch.arange(logits.shape[-1], device=logits.device)
    losses = logits.logsumexp(-1) - torch.where(at_target, logits, 0.0).sum(-1)
    counted = targets != IGNORED
    return torch.where(counted, losses, 0.0).sum() / counted.sum()


def with_embeddings(theta: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Samples the first `size` parameters anew, as embeddings: normal, of a scale in 0.02 to 1 of each run's own."""
    scale = torch.empty(len(theta), 1).uniform_(math.log(0.02), 0.0, generator=generator).exp()
    theta[:, :size] = torch.randn(len(theta), size, generator=generator) * scale
    return theta


def _dropped(x: Tensor, noise: Tensor | None, start: int, rate: float) -> Tensor:
    """Drops each of the values (B, ...) whose noise is below the rate, and scales up the others.

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
    """Describes a perceptron: cross entropy for integer targets (B,), squared error for real ones (B, outputs).

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
        """Shapes of weights (in, out) and biases, from input to output."""
        widths = [self.inputs, *[self.width] * self.depth, self.outputs]
        shapes: Shapes = {}
        for i, (a, b) in enumerate(pairwise(widths)):
            shapes[f"w{i}"], shapes[f"b{i}"] = (a, b), (b,)
        return shapes

    @property
    def noise_size(self) -> int:
        """Number of hidden units, with dropout; else 0."""
        return self.depth * self.width if self.dropout else 0

    def logits(self, params: Params, inputs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Maps inputs (B, inputs) to logits (B, outputs), with dropout where noise is given."""
        x = inputs
        for i in range(self.depth):
            h = x @ params[f"w{i}"] + params[f"b{i}"]
            if self.norm != "none":
                h = _normalise(h, -1 if self.norm == "layer" else 0)
            h = _dropped(_ACTIVATIONS[self.activation](h), noise, i * self.width, self.dropout)
            x = x + h if self.residual and i > 0 else h
        return _product(x, params[f"w{self.depth}"]) + params[f"b{self.depth}"]

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the cross entropy or the mean squared error."""
        return self._criterion(self.logits(params, inputs), targets)

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Computes the same with dropout."""
        return self._criterion(self.logits(params, inputs, noise), targets)

    @staticmethod
    def _criterion(logits: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return (logits - targets).square().mean()
        return cross_entropy(logits, targets)


@dataclass(frozen=True)
class ConvNet(Net):
    """Describes 3x3 convolutions, each followed by 2x2 pooling, and a linear classifier.

    Inputs are images (B, side, side, channels). A convolution is one matrix product over patches, since vmapped
    convolutions with a kernel for each run become grouped ones, which are slow.

    Attributes:
        pool: "max" or "mean".
        augmented: whether training sees each image anew: mirrored or not, and shifted by up to a pixel.
    """

    side: int = 8
    channels: int = 1
    widths: tuple[int, ...] = (8, 16)
    outputs: int = 10
    norm: str = "none"
    pool: str = "max"
    augmented: bool = False

    @property
    def noise_size(self) -> int:
        """One number for the mirror and two for the shift, with augmentation; else 0."""
        return 3 if self.augmented else 0

    @property
    def shapes(self) -> Shapes:
        """Shapes of kernels (3 * 3 * in, out), biases, and the classifier."""
        shapes: Shapes = {}
        channels, side = self.channels, self.side
        for i, width in enumerate(self.widths):
            shapes[f"k{i}"], shapes[f"c{i}"] = (9 * channels, width), (width,)
            channels, side = width, side // 2
        shapes["w"], shapes["b"] = (channels * side * side, self.outputs), (self.outputs,)
        return shapes

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the cross entropy."""
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
        return cross_entropy(_product(x.flatten(1), params["w"]) + params["b"], targets)

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Computes the same of augmented images."""
        return self.loss(params, _augmented(inputs, noise) if self.augmented else inputs, targets)


def _augmented(images: Tensor, noise: Tensor) -> Tensor:
    """Mirrors half of the images (B, side, side, channels) and shifts them by up to a pixel, by noise (B, 3)."""
    mirror, down, right = (part[:, None, None, None] for part in noise.unbind(1))
    images = torch.where(mirror < 0.5, images, images.flip(2))
    for dim, at in ((1, down), (2, right)):
        side = images.shape[dim]
        padding = (0, 0, 0, 0, 1, 1) if dim == 1 else (0, 0, 1, 1)
        first, middle, last = (F.pad(images, padding).narrow(dim, start, side) for start in range(3))
        images = torch.where(at < 1 / 3, first, torch.where(at < 2 / 3, middle, last))
    return images


@dataclass(frozen=True)
class Transformer(Net):
    """Describes a transformer on tokens, for one of three tasks.

    - "causal": predicts each next token of (B, L + 1) tokens, without the targets;
    - "masked": predicts those of (B, L) tokens whose targets are not `IGNORED`; one token beyond the vocabulary
      stands for the hidden ones;
    - "classify": predicts the class (B,) of (B, L) tokens, from the mean of the last layer.

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
        """Shapes of the embeddings, of each block's attention and feed-forward weights, and of the head."""
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
    def noise_size(self) -> int:
        """Number of units of the embeddings and of two sublayers a block, with dropout; else 0."""
        return (1 + 2 * self.layers) * self.length * self.width if self.dropout else 0

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the cross entropy of the next tokens, of the hidden ones, or of the class."""
        return self._loss(params, inputs, targets, None)

    def training_loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor) -> Tensor:
        """Computes the same with dropout."""
        return self._loss(params, inputs, targets, noise)

    def _loss(self, params: Params, inputs: Tensor, targets: Tensor, noise: Tensor | None) -> Tensor:
        causal = self.task == "causal"
        tokens = inputs[:, :-1] if causal else inputs
        x = F.embedding(tokens, params["token"]) + params["position"]
        places = iter(range(0, self.noise_size, self.length * self.width))
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
            return cross_entropy(_product(x.mean(1), params["head"]), targets)
        following = inputs[:, 1:] if causal else targets
        return cross_entropy((x @ params["head"]).flatten(0, 1), following.flatten())

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
        """Samples initial parameters, (runs, size); embeddings have a scale of their own, in 0.02 to 1, in each run."""
        size = (self._tokens + self.length) * self.width
        return with_embeddings(super().initialise(runs, generator), size, generator)


@dataclass(frozen=True)
class TabularNet(Net):
    """Describes embeddings of categorical columns beside numbers, followed by a perceptron.

    Inputs are real, (B, columns + numbers); the first `columns` hold the categories' numbers.
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
        """Shapes of one table for all columns, and of the perceptron."""
        return {"table": (self.columns * self.cardinality, self.embedding)} | self._body.shapes

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the cross entropy."""
        offsets = torch.arange(self.columns, device=inputs.device) * self.cardinality
        rows = inputs[:, : self.columns].long() + offsets
        embedded = F.embedding(rows, params["table"]).flatten(1)
        return self._body.loss(params, torch.cat((embedded, inputs[:, self.columns :]), dim=1), targets)

    def initialise(self, runs: int, generator: torch.Generator) -> Tensor:
        """Samples initial parameters, (runs, size); embeddings have a scale of their own, in 0.02 to 1, in each run."""
        size = self.columns * self.cardinality * self.embedding
        return with_embeddings(super().initialise(runs, generator), size, generator)


@dataclass(frozen=True)
class Quadratic(Net):
    """Describes a noisy quadratic, 0.5 sum_i h_i (w_i - x_i)^2, mean over the batch; inputs (B, 2, size): h and x."""

    dimension: int = 48

    @property
    def shapes(self) -> Shapes:
        """Shape of w: a matrix, which has random initial values."""
        return {"w": (1, self.dimension)}

    def loss(self, params: Params, inputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the quadratic, without the targets."""
        curvature, centre = inputs[:, 0], inputs[:, 1]
        return 0.5 * (curvature * (params["w"] - centre).square()).sum(-1).mean()
