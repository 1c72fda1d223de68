"""Fine-tuning tasks from pretrained networks, which are read from disk."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from metalr.meta.adapters import Adapted
from metalr.meta.architectures import MLP, ConvNet, Transformer
from metalr.meta.families.pool import log_uniform, pick, uniform
from metalr.meta.family import TaskFamily
from metalr.meta.languages import Language, moods, split_words
from metalr.meta.net import Net
from metalr.meta.network_task import NetworkTask
from metalr.meta.pretraining_recipes import as_inputs
from metalr.meta.scenes import Scenes
from metalr.meta.split import Split
from metalr.meta.starts import Starts, StartsFolder

TUNED = ("full", "adapter", "head")
"""What is trained: all parameters, low-rank adapters and the head, or the head alone."""

_RANKS = (2, 4, 8)
_LARGEST_TABLES = 12.0


@dataclass(frozen=True)
class Downstream:
    """Holds P tasks for trained networks.

    Attributes:
        net: the network, with a head of as many outputs as the task has classes.
        train: few samples.
        valid: others, whose words or textures do not occur in training.
    """

    net: Net
    train: Split
    valid: Split


class PretrainedTasks(TaskFamily):
    """Samples trained networks with a new head, and few samples of a task that their pretraining prepares them for.

    The words or textures of validation do not occur in the training samples, so that only pretrained knowledge
    generalises: a rate that destroys it cannot be made up for later. A new head is small and has units of its own (a
    multiplier of `head_gain`), like the head of a wide network: it moves far at rates that leave the body nearly
    unchanged, which are the rates that such a network needs.

    A layer norm right after the embeddings makes their size irrelevant to a post-norm transformer's outputs; there, the
    embeddings are multiplied by 1 to 12, so that they hold most of the parameters' norm, as in real transformers.

    Args:
        folder: of the trained starts; by default $METALR_STARTS, or metalr/starts in the user's cache folder. They
            are made once by `python -m metalr.meta.pretrain`.
        starts: names of those that are drawn, all of the folder by default.
        tuned: what is trained, one of `TUNED` drawn for a task; a name may stand there twice.
        train_sizes: smallest and largest number of training samples, drawn log-uniformly for a task.
        valid_size: number of validation samples.
        batch_sizes: one drawn for a task.
        head_gain: lowest and highest multiplier of the head, drawn log-uniformly for each instance.

    Raises:
        FileNotFoundError: when it is made, where there are no starts.
        ValueError: for a damaged file, another version, or what cannot be drawn.
    """

    kind: str

    def __init__(
        self,
        folder: Path | str | None = None,
        starts: Sequence[str] | None = None,
        tuned: Sequence[str] = ("full", "full", "full", "adapter", "head"),
        train_sizes: tuple[int, int] = (100, 2000),
        valid_size: int = 192,
        batch_sizes: Sequence[int] = (16, 32),
        head_gain: tuple[float, float] = (0.5, 3.0),
    ) -> None:
        unknown = set(tuned) - set(TUNED)
        if unknown or not tuned:
            raise ValueError(f"tuned={list(tuned)}: choose one or more of {', '.join(TUNED)}")
        if not 1 <= train_sizes[0] <= train_sizes[1]:
            raise ValueError(f"train_sizes={train_sizes}: give (smallest, largest), 1 or more")
        if not 0.0 < head_gain[0] <= head_gain[1]:
            raise ValueError(f"head_gain={head_gain}: give (lowest, highest), above 0")
        self.tuned, self.train_sizes, self.valid_size = tuple(tuned), train_sizes, valid_size
        self.batch_sizes, self.head_gain = tuple(batch_sizes), head_gain
        self._folder = StartsFolder(folder)
        known = self._folder.names(self.kind)
        self.starts = tuple(starts or known)
        if missing := set(self.starts) - set(known):
            raise ValueError(f"starts={list(self.starts)}: no {', '.join(sorted(missing))}; there are {list(known)}")
        for name in self.starts:
            self._folder.read(name)

    def sample(self, instances: int, generator: torch.Generator) -> NetworkTask:
        """Draws trained networks of one kind, the tasks, and what is trained."""
        starts = self._folder.read(self.starts[pick(generator, range(len(self.starts)))])
        chosen = torch.randint(len(starts.theta), (instances,), generator=generator)
        tuned = self.tuned[pick(generator, range(len(self.tuned)))]
        batch_size = self.batch_sizes[pick(generator, range(len(self.batch_sizes)))]
        train_size = round(float(log_uniform((), *self.train_sizes, generator)))
        made = self.task(starts, chosen, train_size, generator)
        theta, scale = self._begin(starts, chosen, made.net, generator)
        task = NetworkTask(made.net, theta, made.train, made.valid, batch_size, scale)
        return task if tuned == "full" else _partly(task, tuned, pick(generator, _RANKS), generator)

    @abstractmethod
    def task(self, starts: Starts, chosen: Tensor, train_size: int, generator: torch.Generator) -> Downstream:
        """Draws tasks for the chosen networks, (P,) numbers out of the starts."""

    def _begin(self, starts: Starts, chosen: Tensor, net: Net, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Returns trained parameters with a new head, and the scale that holds the head in other units."""
        trained = torch.func.vmap(starts.net.unflatten)(starts.theta[chosen])
        gain = log_uniform((len(chosen), 1), *self.head_gain, generator)
        size = log_uniform((len(chosen), 1), 0.01, 0.1, generator)
        if isinstance(net, Transformer) and net.norm == "post":
            size_of_tables = log_uniform((len(chosen), 1, 1), 1.0, _LARGEST_TABLES, generator)
            trained |= {name: trained[name] * size_of_tables for name in ("token", "position")}
        pieces, scales = [], []
        head = head_names(net)
        for name, shape in net.shapes.items():
            count = math.prod(shape)
            ones = torch.ones(len(chosen), count)
            if name not in head:
                pieces.append(trained[name].flatten(1)[:, :count])  # a table's last row, of what is hidden, is left out
                scales.append(ones)
            else:
                fresh = torch.randn(len(chosen), count, generator=generator) * size * (len(shape) > 1)
                pieces.append(fresh / gain)
                scales.append(ones * gain)
        return torch.cat(pieces, 1), torch.cat(scales, 1)


class PretrainedLanguageTasks(PretrainedTasks):
    """Samples transformers that know a language by masked modeling, and classify a few of its sentences.

    The class is the sentence's mood (which valence prevails, turned around by negations); more seldom whether a good
    mood and a group of topics come together or apart, or the group alone. Training sentences are written with some
    words of each kind, validation with all others.
    """

    kind = "language"

    def task(self, starts: Starts, chosen: Tensor, train_size: int, generator: torch.Generator) -> Downstream:
        """Samples sentences of the languages."""
        net = starts.net
        if not isinstance(net, Transformer):
            raise TypeError(f"net={net}: tasks on a language need a Transformer")
        language = Language.of(starts.world).select(chosen)
        question = pick(generator, (0, 0, 0, 0, 1, 2))
        groups = torch.rand(len(chosen), language.topics, generator=generator).argsort(1) < language.topics // 2
        seen = float(log_uniform((), 0.03, 0.4, generator))
        words = split_words(language, seen, generator)
        splits = []
        for size, allowed in zip((train_size, self.valid_size), words, strict=True):
            topic = torch.randint(language.topics, (len(chosen), size), generator=generator)
            mood = moods((len(chosen), size), generator)
            sentences = language.write(topic, mood, net.length, generator, allowed)
            feeling = language.feeling(sentences)
            good, group = (torch.where(feeling == 0, mood, feeling) > 0).long(), groups.gather(1, topic).long()
            splits.append(Split(sentences, (good, good ^ group, group)[question]))
        classifier = replace(net, task="classify", classes=2)
        return Downstream(classifier, _noisy(splits[0], 2, generator), splits[1])


class PretrainedSceneTasks(PretrainedTasks):
    """Samples convnets and perceptrons that know many classes of images, and learn groups of shapes from few images.

    Training images are of half of the textures, validation of the others.
    """

    kind = "scenes"

    def task(self, starts: Starts, chosen: Tensor, train_size: int, generator: torch.Generator) -> Downstream:
        """Samples images of the worlds."""
        net = starts.net
        if not isinstance(net, ConvNet | MLP):
            raise TypeError(f"net={net}: tasks on scenes need a ConvNet or an MLP")
        scenes = Scenes(**starts.world).select(chosen)
        instances, (shapes, textures) = len(chosen), (scenes.shape.shape[1], scenes.texture.shape[1])
        classes = min(pick(generator, (2, 3, 4)), shapes // 2)
        group = torch.rand(instances, shapes, generator=generator).argsort(1) % classes
        order = torch.rand(instances, textures, generator=generator).argsort(1)
        splits = []
        for size, allowed in ((train_size, order[:, : textures // 2]), (self.valid_size, order[:, textures // 2 :])):
            shape = torch.randint(shapes, (instances, size), generator=generator)
            which = torch.randint(allowed.shape[1], (instances, size), generator=generator)
            images = scenes.render(shape, allowed.gather(1, which), generator)
            splits.append(Split(as_inputs(net, images), group.gather(1, shape)))
        return Downstream(replace(net, outputs=classes), _noisy(splits[0], classes, generator), splits[1])


def _noisy(split: Split, classes: int, generator: torch.Generator) -> Split:
    """Replaces up to 40 % of the labels by random ones: what a run that forgets learns instead."""
    labels = split.targets
    wrong = torch.rand(labels.shape, generator=generator) < uniform((len(labels), 1), 0.0, 0.4, generator)
    noise = torch.randint(classes, labels.shape, generator=generator)
    return Split(split.inputs, torch.where(wrong, noise, labels))


def head_names(net: Net) -> tuple[str, ...]:
    """Names the tensors that are new for each task."""
    if isinstance(net, Transformer):
        return ("head",)
    return (f"w{net.depth}", f"b{net.depth}") if isinstance(net, MLP) else ("w", "b")


def _partly(task: NetworkTask, tuned: str, rank: int, generator: torch.Generator) -> NetworkTask:
    """Restricts training to adapters on the attention's input or all hidden matrices, or to the head."""
    head = head_names(task.net)
    adapted: tuple[str, ...] = ()
    if tuned == "adapter":
        matrices = [
            n for n, shape in task.net.shapes.items() if n not in (*head, "token", "position") and len(shape) == 2
        ]
        adapted = tuple(n for n in matrices if n.startswith("qkv")) or tuple(matrices)
    net = Adapted(task.net, head, adapted, rank)
    theta, frozen = net.divide(task.theta, generator)
    heads = sum(math.prod(task.net.shapes[name]) for name in head)
    scale = torch.ones_like(theta)
    scale[:, -heads:] = task.scale[:, -heads:]  # a head stands last in every network
    return replace(task, net=net, theta=theta, frozen=frozen, scale=scale)
