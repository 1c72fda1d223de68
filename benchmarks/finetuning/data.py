"""What the networks are fine-tuned on, as tensors, loaded once a process by the project's own data modules."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from benchmarks.suites.problem import Data, Split, data_folder
from datamodules import CIFAR10DataModule, GLUEDataModule

MAX_TOKENS = 64
VALIDATION = 400
"""Rows that a run is evaluated on: the first of the validation part."""


@cache
def sentences(root: str | None, task: str, tokenizer: Path) -> Data:
    """Reads one of GLUE's tasks: tokens, mask and sentences (N, 64 or fewer) int32, padded by 0; labels (N,) int64.

    Args:
        root: folder of the real data; None for the hub.
        task: as `GLUEDataModule` names it.
        tokenizer: folder.
    """
    module = GLUEDataModule(task, data_folder(root, "glue", "nyu-mll/glue"), str(tokenizer), max_length=MAX_TOKENS)
    module.setup("fit")
    train, val = _tokens(module.splits["train"]), _tokens(module.splits["validation"].select(range(VALIDATION)))
    by_length = val.inputs[1].sum(-1).argsort(stable=True)  # so that little of a batch is padding
    return Data(train, val.rows(by_length))


def _tokens(rows: Any) -> Split:
    columns = ("input_ids", "attention_mask", "token_type_ids")
    return Split(tuple(_padded(rows[name][:]) for name in columns), torch.tensor(rows["label"][:]))


def _padded(rows: list[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=torch.int32) for row in rows], batch_first=True)


@cache
def images(root: str | None) -> Data:
    """Reads CIFAR-10, not augmented: images (N, 3, 32, 32)."""
    module = CIFAR10DataModule(data_folder(root, "cifar10", "uoft-cs/cifar10"), augment=False)
    module.setup("fit")
    train, val = (module.splits[name] for name in ("train", "val"))
    parts = (train.__getitems__(list(range(len(train)))), val.__getitems__(list(range(VALIDATION))))
    return Data(*(Split((pixels,), labels) for pixels, labels in parts))
