"""The suite's real data as tensors, loaded once a process by the project's own data modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.suites.problem import Data, Split, data_folder
from datamodules import AdultDataModule, CIFAR10DataModule, GLUEDataModule, hub
from datamodules.adult import Arrays
from datamodules.digits import load_splits

VOCABULARY = 4000
"""Most frequent word pieces of SST-2's training part that keep a code of their own: 0.93 of all that occur."""

MAX_TOKENS = 32
BLOCK = 32
"""Characters that are predicted in a row."""

CHARACTERS = 96
"""Printable ASCII, and one code for all others."""


@cache
def digits(root: str | None) -> Data:
    """Reads scikit-learn's digits, not from `root`: images (N, 1, 8, 8); 1,077 and 360 rows."""
    splits = load_splits()
    return Data(*(Split((images,), labels) for images, labels in (splits["train"], splits["val"])))


@cache
def cifar10(root: str | None) -> Data:
    """Reads CIFAR-10 at half its size, not augmented: images (N, 3, 16, 16); 9,000 and 320 rows of the smaller copy."""
    module = CIFAR10DataModule(data_folder(root, "cifar10", "uoft-cs/cifar10"), augment=False)
    module.setup("fit")
    parts = []
    for name, limit in (("train", None), ("val", 320)):
        images, labels = module.splits[name].__getitems__(list(range(len(module.splits[name])))[:limit])
        halved = F.avg_pool2d(images, 2).contiguous(memory_format=torch.channels_last)
        parts.append(Split((halved,), labels))
    return Data(*parts)


@cache
def sst2(root: str | None) -> Data:
    """Reads SST-2: codes (N, 32), padded with 0; 67,349 rows, and 320 of the 872 official validation sentences."""
    tokenizer = data_folder(root, "tokenizers/bert-base-uncased", "google-bert/bert-base-uncased")
    module = GLUEDataModule("sst2", data_folder(root, "glue", "nyu-mll/glue"), tokenizer, max_length=MAX_TOKENS)
    module.setup("fit")
    train, val = module.splits["train"], module.splits["validation"].select(range(320))
    pieces: list[list[int]] = train["input_ids"][:]
    counts = Counter(piece for row in pieces for piece in row)
    code = {piece: i + 2 for i, (piece, _) in enumerate(counts.most_common(VOCABULARY - 2))}  # 0 pads, 1 is unknown
    return Data(
        *(
            Split((_padded([code.get(p, 1) for p in row] for row in rows["input_ids"][:]),), _labels(rows["label"][:]))
            for rows in (train, val)
        )
    )


def _padded(rows: Iterable[list[int]]) -> Tensor:
    return torch.tensor([row + [0] * (MAX_TOKENS - len(row)) for row in rows])


def _labels(labels: Iterable[int]) -> Tensor:
    return torch.tensor(list(labels))


@cache
def characters(root: str | None) -> Data:
    """Reads SQuAD's paragraphs by characters: blocks (N, 32), and the characters that follow; val has 64 blocks.

    Validation is from the articles of the validation split, drawn evenly from all of it.
    """
    path = data_folder(root, "squad_v2", "rajpurkar/squad_v2")
    train, val = (_blocks(hub.load(path, None, split)["context"][:]) for split in ("train", "validation"))
    return Data(train, val.rows(torch.linspace(0, len(val.labels) - 1, 64).long()))


def _blocks(contexts: list[str]) -> Split:
    text = "\n".join(dict.fromkeys(contexts))  # SQuAD has a paragraph once a question
    codes = torch.tensor([o - 31 if 32 <= (o := ord(letter)) < 127 else 0 for letter in text])
    count = (len(codes) - 1) // BLOCK
    return Split((codes[: count * BLOCK].view(count, BLOCK),), codes[1 : count * BLOCK + 1].view(count, BLOCK))


@cache
def _adult(root: str | None, standardise: bool) -> AdultDataModule:
    module = AdultDataModule(data_folder(root, "adult", "scikit-learn/adult-census-income"), standardise=standardise)
    module.prepare_data()
    module.setup("fit")
    return module


@cache
def adult(root: str | None) -> Data:
    """Reads UCI Adult, standardised: numbers (N, 6) and codes (N, 8); 2,000 rows to validate on."""
    splits = _adult(root, True).splits
    (*train, labels), (*val, val_labels) = splits["train"].tensors, splits["val"].tensors
    return Data(Split(tuple(train), labels), Split(tuple(val), val_labels).rows(slice(2000)))


def adult_category_sizes(root: str | None) -> list[int]:
    """Counts the codes of each categorical column of Adult."""
    return _adult(root, True).category_sizes


@cache
def adult_arrays(root: str | None) -> tuple[Arrays, Split]:
    """Reads UCI Adult as XGBoost takes it, and the 2,000 rows to validate on."""
    module = _adult(root, False)
    *val, labels = module.splits["val"].tensors
    return module.arrays("train"), Split(tuple(val), labels).rows(slice(2000))
