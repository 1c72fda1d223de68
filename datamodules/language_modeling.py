"""Blocks of running text from any data set with a text column."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.pretrained import any_tokenizer
from datamodules.text import TextDataModule, check_columns

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase


class LanguageModelingDataModule(TextDataModule):
    """Loads batches of `input_ids` (B, max_length): texts of a column, tokenised, joined and cut into equal blocks.

    Empty texts are skipped, as is a text equal to the one before it (SQuAD repeats a context for each question). The
    tokens after the last whole block of each 10,000 texts are dropped.

    Args:
        path: hub id, or a folder in the hub's layout.
        name: configuration of the data set, such as "wikitext-2-raw-v1".
        column: name of the text column, such as "sentence" for SST-2 and "context" for SQuAD.
        tokenizer: hub id or folder of any tokenizer; None for that of the model that the Trainer trains.
        separator: put after each text; None for the tokenizer's end-of-text token, "" for rows that are lines of one
            text, as in WikiText.
        batch_size: blocks in a batch, on each process.
        max_length: tokens in a block.
        validation_split: name of the split to validate on.
        test_split: name of the split to test and to predict on; None for "test" if it exists, or the validation split.
        num_workers: of each loader; None for a default by the number of cores.

    Raises:
        ValueError: for an argument out of range, or a column that the data does not have.
        FileNotFoundError: for a folder that is missing.
    """

    def __init__(
        self,
        path: str = "Salesforce/wikitext",
        name: str | None = None,
        column: str = "text",
        tokenizer: str | None = None,
        separator: str | None = None,
        batch_size: int = 8,
        max_length: int = 1024,
        validation_split: str = "validation",
        test_split: str | None = None,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(path, name, tokenizer, batch_size, max_length, num_workers)
        self.column = column
        self.separator = separator
        self.validation_split = validation_split
        self.test_split = test_split
        self.blocks: dict[str, Dataset] = {}

    def prepare_data(self) -> None:
        """Downloads and tokenises the data once a node; every process then reads the cache."""
        for split in ("train", self.validation_split, self._test_name()):
            self._cut(split)

    def setup(self, stage: str) -> None:
        """Reads the blocks of a stage ("fit", "validate", "test" or "predict") from the cache."""
        self.test_split = self._test_name()
        wanted = {"fit": ("train", self.validation_split), "validate": (self.validation_split,)}
        for split in wanted.get(stage, (self.test_split,)):
            self.blocks[split] = self._cut(split)

    def train_dataloader(self) -> DataLoader:
        """Shuffled, without the last incomplete batch."""
        return self._loader(self.blocks["train"], _collate, training=True)

    def val_dataloader(self) -> DataLoader:
        """Returns the validation split, in order."""
        return self._loader(self.blocks[self.validation_split], _collate)

    def test_dataloader(self) -> DataLoader:
        """Returns the test split, in order."""
        return self._loader(self.blocks[self._test_name()], _collate)

    def predict_dataloader(self) -> DataLoader:
        """Returns the test split, in order."""
        return self.test_dataloader()

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = any_tokenizer(self.tokenizer_path)
        if self.separator is None and tokenizer.eos_token is None:
            raise ValueError(f'separator=None, and {self.tokenizer_path!r} has no end-of-text token: give "" or a text')
        tokenizer.model_max_length = int(1e30)  # no warning of long texts, which are cut into blocks
        return tokenizer

    def _test_name(self) -> str:
        return self.test_split or ("test" if self._has("test") else self.validation_split)

    def _cut(self, split: str) -> Dataset:
        rows = self._rows(split)
        check_columns(rows, (self.column,), self.path)
        separator = self.tokenizer.eos_token if self.separator is None else self.separator
        blocks = rows.map(
            _blocks,
            batched=True,
            batch_size=10_000,
            input_columns=[self.column],
            fn_kwargs={"tokenizer": self.tokenizer, "separator": separator, "length": self.max_length},
            remove_columns=rows.column_names,
            desc=f"Cutting {split} into blocks of {self.max_length} tokens",
        )
        if len(blocks) == 0:
            raise ValueError(f"max_length={self.max_length}: split {split!r} of {self.path!r} has fewer tokens")
        return blocks


def _blocks(texts: list[str], tokenizer: PreTrainedTokenizerBase, separator: str, length: int) -> dict[str, Any]:
    kept = [text + separator for text, before in zip(texts, ["", *texts], strict=False) if text and text != before]
    ids = list(chain.from_iterable(tokenizer(kept, add_special_tokens=False)["input_ids"] if kept else ()))
    return {"input_ids": [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]}


def _collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {"input_ids": torch.tensor([row["input_ids"] for row in rows])}
