"""Synthetic languages: tokens whose attributes only much text teaches, and sentences that are about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

PARTS = 5
"""Parts of speech: three of content words, function words, and negations."""

_FUNCTION, _NEGATION = 3, 4
_NEGATIONS = 4
_TENSORS = ("part", "topic", "valence", "share", "grammar")


@dataclass(frozen=True)
class Language:
    """Holds P languages of one size. A word has a part of speech, and a content word has a topic and a valence.

    A sentence has a topic and a mood. Its parts of speech follow a Markov chain; a content word is mostly of the
    sentence's topic, and its valence is mostly the mood, or the opposite right after a negation. Which words are alike
    can thus be inferred from their company alone.

    Attributes:
        part: of speech, (P, V), below `PARTS`.
        topic: of content words, (P, V), below `topics`.
        valence: -1, 0 or 1, (P, V); 0 for what is no content word.
        share: how frequent a word is among those of its kind, (P, V).
        grammar: chance of each next part of speech, (P, PARTS, PARTS).
        topics: number of topics.
    """

    part: Tensor
    topic: Tensor
    valence: Tensor
    share: Tensor
    grammar: Tensor
    topics: int

    @classmethod
    def sample(cls, instances: int, vocabulary: int, topics: int, generator: torch.Generator) -> Language:
        """Draws languages of so many words and topics."""
        function = vocabulary // 8
        order = torch.rand(instances, vocabulary, generator=generator).argsort(1)
        part = torch.where(order < function, _FUNCTION, order % 3)
        part = torch.where(order < _NEGATIONS, _NEGATION, part)
        content = part < _FUNCTION
        topic = (order // 3) % topics
        valence = ((order // (3 * topics)) % 3 - 1) * content
        grammar = (1.5 * torch.randn(instances, PARTS, PARTS, generator=generator)).exp()
        grammar[..., _NEGATION] = grammar[..., :_FUNCTION].sum(-1) / 6.0
        grammar[..., _FUNCTION] = grammar[..., :_FUNCTION].sum(-1) / 4.0
        grammar[:, _NEGATION, _FUNCTION:] = 0.0  # what a negation turns around comes right after it
        rank = torch.rand(instances, vocabulary, generator=generator).argsort(-1) + 1.0
        share = rank ** -torch.empty(instances, 1).uniform_(0.0, 0.6, generator=generator)  # Zipf's law, or flatter
        return cls(part, topic, valence, share, grammar / grammar.sum(-1, keepdim=True), topics)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Language:
        """Makes languages of `tensors`."""
        return cls(**{name: tensors[name] for name in _TENSORS}, topics=int(tensors["topic"].max()) + 1)

    def tensors(self) -> dict[str, Tensor]:
        """Returns all that makes the language, by name."""
        return {name: getattr(self, name) for name in _TENSORS}

    def __len__(self) -> int:
        """Counts the P languages."""
        return len(self.part)

    def select(self, instances: Tensor) -> Language:
        """Selects some of the languages, by number."""
        return Language(**{name: value[instances] for name, value in self.tensors().items()}, topics=self.topics)

    def write(
        self,
        topic: Tensor,
        mood: Tensor,
        length: int,
        generator: torch.Generator,
        allowed: Tensor | None = None,
        focus: float = 0.85,
    ) -> Tensor:
        """Writes sentences, (P, N, length).

        Args:
            topic: of each sentence, (P, N), or of each word, (P, N, length).
            mood: -1 or 1, of each sentence, (P, N).
            length: words of a sentence.
            generator: of all random numbers.
            allowed: words that may occur, (P, V); all by default. Function words and negations always may.
            focus: chance that a content word is of the sentence's topic, and that it is of the mood that fits.
        """
        cumulative = self._words(allowed, focus)
        topic = topic if topic.dim() == 3 else topic[..., None].expand(-1, -1, length)
        rows, samples = torch.arange(len(self))[:, None], topic.shape[1]
        part = torch.randint(_FUNCTION, (len(self), samples), generator=generator)
        words, edges = [], self.grammar.cumsum(-1)
        negated = torch.zeros_like(part, dtype=torch.bool)
        for position in range(length):
            heard = torch.where(negated, -mood, mood)
            kind = (part * self.topics + topic[..., position]) * 2 + (heard > 0)
            first = (torch.arange(len(self))[:, None] * cumulative.shape[1] + kind).double()
            chance = torch.rand(part.shape, generator=generator, dtype=torch.float64)
            word = torch.searchsorted(cumulative.flatten(), first + chance) - first.long() * cumulative.shape[2]
            words.append(word.clamp(0, cumulative.shape[2] - 1))
            negated = part == _NEGATION
            chance = torch.rand((*part.shape, 1), generator=generator)
            part = (chance > edges[rows, part]).sum(-1).clamp_max(PARTS - 1)
        return torch.stack(words, -1)

    def _words(self, allowed: Tensor | None, focus: float) -> Tensor:
        """Cumulates the chance of each word by part, topic and mood, each row plus its index: (P, rows, V)."""
        content = self.part < _FUNCTION
        may = torch.ones_like(content) if allowed is None else allowed | ~content
        part, topic, mood = torch.meshgrid(
            torch.arange(PARTS), torch.arange(self.topics), torch.tensor([-1, 1]), indexing="ij"
        )
        part, topic, mood = (value.flatten()[:, None] for value in (part, topic, mood))
        fits = torch.where(self.topic[:, None] == topic, focus, (1.0 - focus) / (self.topics - 1))
        valence = self.valence[:, None]
        fits = fits * torch.where(valence == mood, focus, torch.where(valence == -mood, 1.0 - focus, 0.5))
        fits = torch.where(content[:, None], fits, 1.0) * (self.part[:, None] == part) * may[:, None]
        weight = (fits * self.share[:, None]).double() + 1e-30
        cumulative = weight.cumsum(-1) / weight.sum(-1, keepdim=True)
        first = torch.arange(cumulative.shape[0] * cumulative.shape[1]).view(len(self), -1, 1)
        return cumulative + first

    def feeling(self, sentences: Tensor) -> Tensor:
        """Sums the words' valences, each turned around right after a negation, (P, N)."""
        rows = torch.arange(len(self))[:, None, None]
        valence, turned = self.valence[rows, sentences], (self.part[rows, sentences] == _NEGATION).roll(1, -1)
        turned[..., 0] = False
        return torch.where(turned, -valence, valence).sum(-1)


def split_words(language: Language, seen: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Samples two disjoint sets of content words, (P, V) each; the first has a share `seen` of each kind.

    A kind is what a sentence can ask for: part of speech, topic and valence.
    """
    kind = (language.part * language.topics + language.topic) * 3 + language.valence + 1
    order = torch.rand(kind.shape, generator=generator)
    same = kind[:, :, None] == kind[:, None, :]
    rank = (same & (order[:, None, :] < order[:, :, None])).sum(-1)
    count = same.sum(-1)
    first = rank < (seen * count).ceil().clamp(max=count - 1).clamp_min(1)
    return first, ~first


def moods(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Samples moods, each -1 or 1."""
    return 1 - 2 * torch.randint(2, shape, generator=generator)
