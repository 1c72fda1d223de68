"""Transformers on synthetic sequences: language models and classifiers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metalr.meta.architectures import IGNORED, Transformer
from metalr.meta.families.pool import PooledFamily, corrupt, log_uniform, split, uniform
from metalr.meta.net import Net
from metalr.meta.recurrent import Recurrent
from metalr.meta.split import Split


def zipf(instances: int, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Samples shares of tokens by Zipf's law, exponent 0 to 1.2, in random order: (instances, vocabulary)."""
    rank = torch.rand(instances, vocabulary, generator=generator).argsort(-1) + 1.0
    share = rank ** -uniform((instances, 1), 0.0, 1.2, generator)
    normalised: Tensor = share / share.sum(-1, keepdim=True)
    return normalised


def _transformer(net: Net) -> Transformer:
    if not isinstance(net, Transformer):
        raise TypeError(f"net={net}: tasks on tokens need a Transformer")
    return net


def sequences(net: Transformer | Recurrent, instances: int, samples: int, generator: torch.Generator) -> Tensor:
    """Samples Markov chains in which some tokens are rare and some repeat the fourth last: (P, N, length + 1)."""
    vocabulary = net.vocabulary
    sharpness = log_uniform((instances, 1, 1), 1.0, 4.0, generator)
    rarity = zipf(instances, vocabulary, generator).log()[:, None]
    chain = (sharpness * torch.randn(instances, vocabulary, vocabulary, generator=generator) + rarity).softmax(-1)
    copy = uniform((instances, 1), 0.0, 0.6, generator)
    tokens = [torch.randint(vocabulary, (instances, samples), generator=generator)]
    rows = torch.arange(instances)[:, None]
    for position in range(net.length):
        edges = chain[rows, tokens[-1]].cumsum(-1)
        chance = torch.rand(instances, samples, 1, generator=generator)
        following = (chance > edges).sum(-1).clamp_max(vocabulary - 1)
        if position >= 3:
            repeated = torch.rand(instances, samples, generator=generator) < copy
            following = torch.where(repeated, tokens[position - 3], following)
        tokens.append(following)
    return torch.stack(tokens, dim=-1)


def sentences(
    net: Transformer | Recurrent, instances: int, samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Samples long-tailed tokens (P, N, length), and the classes (P, N) that they are evidence for."""
    vocabulary = net.vocabulary
    share = zipf(instances, vocabulary, generator)
    tokens = share.multinomial(samples * net.length, replacement=True, generator=generator)
    rows = torch.arange(instances)[:, None]
    voice = torch.randn(instances, vocabulary, net.classes, generator=generator)
    voice = voice * (torch.rand(instances, vocabulary, 1, generator=generator) < 0.4)
    turning = torch.rand(instances, vocabulary, generator=generator) < 0.1
    heard = voice[rows, tokens].view(instances, samples, net.length, net.classes)
    turned = turning[rows, tokens].view(instances, samples, net.length).roll(1, dims=2)
    turned[..., 0] = False
    votes = torch.where(turned[..., None], -heard, heard).sum(2)
    return tokens.view(instances, samples, net.length), votes.argmax(-1)


class TransformerTasks(PooledFamily):
    """Samples tiny causal transformers on random Markov chains; some tokens are rare, some repeat the fourth last."""

    pool = (
        (Transformer(), 16),
        (Transformer(width=24, layers=2, length=8), 16),
        (Transformer(vocabulary=24, width=16, layers=2, length=8, norm="none"), 32),
        (Transformer(vocabulary=48, width=32, layers=2, heads=4, length=8, norm="post"), 16),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples sequences of the chain."""
        samples = train_size + self.valid_size
        tokens = sequences(_transformer(net), instances, samples, generator)
        return split(tokens, torch.zeros(instances, samples), train_size)


class MaskedTransformerTasks(PooledFamily):
    """Samples tiny transformers that predict the hidden tokens of such sequences, as BERT's pre-training does.

    An eighth to a third of a sequence's tokens, at least one, are hidden; they are the same in each epoch.
    """

    pool = (
        (Transformer(task="masked", norm="post"), 16),
        (Transformer(vocabulary=32, width=24, layers=2, length=8, task="masked", dropout=0.1), 32),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples sequences with hidden tokens; the targets are the hidden tokens."""
        net = _transformer(net)
        tokens = sequences(net, instances, train_size + self.valid_size, generator)[..., 1:]
        share = uniform((instances, 1, 1), 0.125, 0.333, generator)
        chances = torch.rand(tokens.shape, generator=generator)
        hidden = (chances < share) | (chances == chances.amin(-1, keepdim=True))
        inputs, targets = torch.where(hidden, net.vocabulary, tokens), torch.where(hidden, tokens, IGNORED)
        return split(inputs, targets, train_size)


def _classifier(classes: int, norm: str = "post", **sizes: Any) -> Transformer:
    return Transformer(task="classify", classes=classes, norm=norm, **sizes)


class SentenceTasks(PooledFamily):
    """Samples tiny transformers that classify sequences of long-tailed tokens, as of a sentiment.

    Some tokens are evidence for a class, and some invert the evidence of the token after them; labels are noisy. With
    the largest vocabulary the loss is constant until the embeddings have learned something, and a rate that is too high
    in that time does lasting harm.
    """

    pool = (
        (_classifier(2, vocabulary=200, width=32, layers=2, heads=4, length=10, dropout=0.1), 32),
        (_classifier(3, vocabulary=100, width=24, layers=1, heads=2, length=12), 16),
        (_classifier(2, vocabulary=100, width=24, layers=2, heads=2, length=8, norm="pre"), 32),
        (_classifier(5, vocabulary=60, width=16, layers=3, heads=2, length=8), 64),
        (_classifier(2, vocabulary=1500, width=16, heads=2, length=12, dropout=0.1), 16),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples sentences, and their classes."""
        net = _transformer(net)
        samples = train_size + self.valid_size
        train, valid = split(*sentences(net, instances, samples, generator), train_size)
        return corrupt(train, generator, net.classes), valid
