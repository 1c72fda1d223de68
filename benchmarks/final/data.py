"""The suite's data as tensors, loaded once a process: scikit-learn's, a chaotic series, and real images and texts."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_sample_image
from torch import Tensor

from benchmarks.suites.problem import Data, Split, data_folder
from datamodules import CIFAR10DataModule, hub
from datamodules.adult import Arrays
from datamodules.pretrained import any_tokenizer, load_tokenizer

WINDOW = 24
"""Values of the series that the next one is forecast from."""

LETTERS = 96
"""Printable ASCII, and one code for all others."""

LETTER_BLOCK = 48
PIECE_BLOCK = 24
QUESTION = 24
"""Letters, word pieces and a question's word pieces in a row."""

PIECES = 2000
"""Most frequent word pieces that keep a code of their own; the others share code 1, and 0 pads."""

VEHICLES = (0, 1, 8, 9)
"""Classes of CIFAR-10: aeroplane, car, ship, truck."""


def _shuffled(inputs: Tensor, labels: Tensor, val: int) -> Data:
    """Holds out some rows, always the same."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    rows = Split((inputs,), labels)
    return Data(rows.rows(order[val:]), rows.rows(order[:val]))


@cache
def photograph(root: str | None) -> Data:
    """Reads scikit-learn's photograph of a temple: places (N, 2) in [-1, 1] and standardised colours (N, 3).

    Every second pixel each way; 2,000 are held out.
    """
    pixels = torch.tensor(load_sample_image("china.jpg")[::2, ::2] / 255.0, dtype=torch.float32)
    height, width, _ = pixels.shape
    places = torch.cartesian_prod(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width))
    colours = pixels.flatten(0, 1)
    return _shuffled(places, (colours - colours.mean(0)) / colours.std(0), 2000)


@cache
def diabetes(root: str | None) -> Data:
    """Reads Efron et al. 2004's diabetes: ten standardised columns, and the disease's progress; 332 and 110 rows."""
    features, target = (torch.tensor(each, dtype=torch.float32) for each in load_diabetes(return_X_y=True))
    return _shuffled((features - features.mean(0)) / features.std(0), (target - target.mean()) / target.std(), 110)


@cache
def series(root: str | None) -> Data:
    """Makes Mackey and Glass's noisy series (1977), delay 17: windows (N, 24, 1) and the values after them.

    Validation is the end of the series, 500 windows.
    """
    generator = np.random.default_rng(0)
    values = [1.2] * 18
    for _ in range(12_000):
        values.append(values[-1] + 0.2 * values[-18] / (1.0 + values[-18] ** 10) - 0.1 * values[-1])
    steps = np.array(values[500::3])
    noisy = (steps - steps.mean()) / steps.std() + 0.1 * generator.standard_normal(len(steps))
    windows = torch.tensor(noisy, dtype=torch.float32).unfold(0, WINDOW + 1, 1)
    rows = Split((windows[:, :-1, None].contiguous(),), windows[:, -1].contiguous())
    return Data(rows.rows(slice(len(windows) - 500 - WINDOW)), rows.rows(slice(len(windows) - 500, None)))


@cache
def cifar10(root: str | None) -> Data:
    """Reads CIFAR-10 in full size, not augmented: images (N, 3, 32, 32); 320 are held out."""
    module = CIFAR10DataModule(data_folder(root, "cifar10", "uoft-cs/cifar10"), augment=False)
    module.setup("fit")
    train, val = (module.splits[name] for name in ("train", "val"))
    parts = (train.__getitems__(list(range(len(train)))), val.__getitems__(list(range(320))))
    return Data(*(Split((images,), labels) for images, labels in parts))


@cache
def vehicles(root: str | None) -> tuple[Arrays, Split]:
    """Reads CIFAR-10's colours at 8x8, 192 numbers, and whether it is a vehicle; 1,000 rows are held out."""
    module = CIFAR10DataModule(data_folder(root, "cifar10", "uoft-cs/cifar10"), augment=False)
    module.setup("fit")
    parts = []
    for name, limit in (("train", None), ("val", 1000)):
        images, labels = module.splits[name].__getitems__(list(range(len(module.splits[name])))[:limit])
        parts.append((F.avg_pool2d(images, 4).flatten(1), torch.isin(labels, torch.tensor(VEHICLES)).float()))
    (train, labels), (val, val_labels) = parts
    names = [f"colour{i}" for i in range(train.shape[1])]
    codes = torch.empty(len(val), 0, dtype=torch.long)
    return Arrays(train.numpy(), labels.numpy(), names, ["q"] * len(names)), Split((val, codes), val_labels)


@cache
def rotations(root: str | None) -> Data:
    """Reads ImageNet's photographs at 32x32 turned by quarters: images (N, 3, 32, 32), quarters (N,) in 0 to 3.

    4,000 rows of 1,000 photographs; held out are 200 of 50 others (Gidaris et al. 2018).
    """
    path = data_folder(root, "imagenet", "ILSVRC/imagenet-1k")
    splits = []
    for name, limit in (("train", 1000), ("validation", 50)):
        photographs = hub.load(path, None, name).select(range(limit))
        images = torch.stack([_small(each) for each in photographs["image"]])
        turned = torch.cat([images.rot90(quarters, (2, 3)) for quarters in range(4)])
        splits.append(Split((turned,), torch.arange(4).repeat_interleave(limit)))
    return Data(*splits)


def _small(photograph: object, side: int = 32) -> Tensor:
    pixels = np.asarray(photograph.convert("RGB").resize((side, side)))  # type: ignore[attr-defined]
    return torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1) / 127.5 - 1.0


def _glue(root: str | None, task: str, split: str, column: str) -> list[str]:
    texts: list[str] = hub.load(data_folder(root, "glue", "nyu-mll/glue"), task, split)[column][:]
    return texts


@cache
def reviews(root: str | None) -> Data:
    """Reads SST-2's reviews by letters: blocks (N, 48) and the letters that follow; 64 blocks are held out."""
    parts = []
    for split in ("train", "validation"):
        text = "\n".join(_glue(root, "sst2", split, "sentence")[:20_000])
        codes = torch.tensor([o - 31 if 32 <= (o := ord(letter)) < 127 else 0 for letter in text])
        parts.append(_blocks(codes, LETTER_BLOCK))
    train, val = parts
    return Data(train, val.rows(torch.linspace(0, len(val.labels) - 1, 64).long()))


@cache
def premises(root: str | None) -> Data:
    """Reads MultiNLI's premises in GPT-2's word pieces: blocks (N, 24), and the pieces that follow; 64 held out."""
    tokenizer = any_tokenizer(data_folder(root, "tokenizers/gpt2", "openai-community/gpt2"))
    texts = [_glue(root, "mnli", split, "premise") for split in ("train", "validation_matched")]
    rows = [tokenizer([f"{text}\n" for text in dict.fromkeys(each)])["input_ids"] for each in texts]
    pieces = [[piece for row in each for piece in row] for each in rows]
    code = _codes(pieces[0])
    train, val = (_blocks(torch.tensor([code.get(piece, 1) for piece in each]), PIECE_BLOCK) for each in pieces)
    return Data(train, val.rows(torch.linspace(0, len(val.labels) - 1, 64).long()))


def _codes(pieces: list[int]) -> dict[int, int]:
    return {piece: i + 2 for i, (piece, _) in enumerate(Counter(pieces).most_common(PIECES - 2))}


def _blocks(codes: Tensor, block: int) -> Split:
    count = (len(codes) - 1) // block
    return Split((codes[: count * block].view(count, block),), codes[1 : count * block + 1].view(count, block))


@cache
def questions(root: str | None) -> Data:
    """Reads Quora's pairs of questions: codes (N, 2, 24), padded by 0; whether they ask the same; 1,000 held out."""
    tokenizer = load_tokenizer(data_folder(root, "tokenizers/bert-base-uncased", "google-bert/bert-base-uncased"))
    columns = ("question1", "question2")
    raw = {
        split: [
            tokenizer(_glue(root, "qqp", split, column), add_special_tokens=False)["input_ids"] for column in columns
        ]
        for split in ("train", "validation")
    }
    code = _codes([piece for rows in raw["train"] for row in rows for piece in row])
    parts = []
    for split, sides in raw.items():
        padded = [
            [[code.get(piece, 1) for piece in row[:QUESTION]] + [0] * (QUESTION - len(row)) for row in rows]
            for rows in sides
        ]
        path = data_folder(root, "glue", "nyu-mll/glue")
        labels = torch.tensor(hub.load(path, "qqp", split)["label"][:])
        parts.append(Split((torch.tensor(padded).transpose(0, 1).contiguous(),), labels.float()))
    train, val = parts
    return Data(train, val.rows(slice(1000)))
