"""Transformers on synthetic sequences: language models and classifiers."""

from __future__ import annotations

import torch
from torch import Tensor

from metalr.meta.families.pool import PooledFamily, corrupt, log_uniform, split, uniform
from metalr.meta.nets import Net, Transformer
from metalr.meta.task import Split


def zipf(instances: int, vocabulary: int, generator: torch.Generator) -> Tensor:
    """Shares of tokens by Zipf's law with an exponent of 0 to 1.2, in random order, (instances, vocabulary)."""
    rank = torch.rand(instances, vocabulary, generator=generator).argsort(-1) + 1.0
    share = rank ** -uniform((instances, 1), 0.0, 1.2, generator)
    normalised: Tensor = share / share.sum(-1, keepdim=True)
    return normalised


class TransformerTasks(PooledFamily):
    """Tiny causal transformers on random Markov chains, where some tokens are rare and some repeat the fourth last."""

    pool = (
        (Transformer(), 16),
        (Transformer(width=24, layers=2, length=8), 16),
        (Transformer(vocabulary=24, width=16, layers=2, length=8, norm="none"), 32),
        (Transformer(vocabulary=48, width=32, layers=2, heads=4, length=8, norm="post"), 16),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Sequences of the chain."""
        if not isinstance(net, Transformer):
            raise TypeError(f"net={net}: transformer tasks need a Transformer")
        samples, vocabulary = train_size + self.valid_size, net.vocabulary
        sharpness = log_uniform((instances, 1, 1), 1.0, 4.0, generator)
        rarity = zipf(instances, vocabulary, generator).log()[:, None]
        chain = (sharpness * torch.randn(instances, vocabulary, vocabulary, generator=generator) + rarity).softmax(-1)
        copy = uniform((instances, 1), 0.0, 0.6, generator)
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
        return split(sequences, torch.zeros(instances, samples), train_size)


class SentenceTasks(PooledFamily):
    """Tiny transformers that classify sequences of long-tailed tokens, as a sentiment would be.

    Some tokens speak for a class, and some turn the word of the token after them around; labels are noisy. With the
    largest vocabulary the loss stays where it is until the embeddings have learned something, and a rate that is too
    high in that time does harm that is not made good.
    """

    pool = (
        (Transformer(vocabulary=200, width=32, layers=2, heads=4, length=10, norm="post", classes=2), 32),
        (Transformer(vocabulary=100, width=24, layers=1, heads=2, length=12, norm="post", classes=3), 16),
        (Transformer(vocabulary=100, width=24, layers=2, heads=2, length=8, norm="pre", classes=2), 32),
        (Transformer(vocabulary=60, width=16, layers=3, heads=2, length=8, norm="post", classes=5), 64),
        (Transformer(vocabulary=500, width=32, layers=2, heads=4, length=12, norm="post", classes=2), 16),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Sequences, and the classes that their tokens speak for."""
        if not isinstance(net, Transformer):
            raise TypeError(f"net={net}: sentence tasks need a Transformer")
        samples, vocabulary = train_size + self.valid_size, net.vocabulary
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
        train, valid = split(tokens.view(instances, samples, net.length), votes.argmax(-1), train_size)
        return corrupt(train, generator, net.classes), valid
