"""SQuAD 2.0 and 1.1: the span of a paragraph that answers a question, or none (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.official import squad_documents
from datamodules.pretrained import load_tokenizer
from datamodules.squad_windows import cut_windows, separate
from datamodules.text import TextDataModule, check_columns

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase

COLUMNS = ("id", "context", "question", "answers")


class SQuADDataModule(TextDataModule):
    """Provides batches of windows on (question, context), padded to their longest.

    A context longer than a window is cut into overlapping ones. A training batch is what the tokenizer gives
    (`input_ids` and so on, (B, L), int64) with `start_positions` and `end_positions` (B,), the tokens of the answer;
    both are `null_positions` where the window does not hold an answer. An evaluation batch has, besides the
    tokens, `null_positions` (B,), `offsets` (B, L, 2), the characters of the context that each token covers, -1 for
    a token that is not of the context, and `windows` (B, 2), the row of the question and the number of the window.

    The null position is that of the class token, as BERT has it; where there is none (GPT-2), the question and the
    context are each closed by the end-of-text token, and the last one is it, since it alone has seen everything.

    Testing and prediction take the validation split: the hub has no other.

    `QuestionAnswering` reads `examples` and `unanswerable` off it.

    Args:
        path: hub id (v1.1: "rajpurkar/squad"); or a folder in the hub's layout, or with SQuAD's own JSON
            (train-v2.0.json, dev-v2.0.json).
        name: configuration of the data set.
        tokenizer: hub id or folder of any fast tokenizer; None for that of the model which the Trainer trains.
        pad_token: a token of its vocabulary to pad with, for a tokenizer without one (GPT-2: "<|endoftext|>").
        batch_size: windows a batch and process.
        max_length: tokens a window at most.
        stride: tokens that two windows on one context share.
        max_question: tokens of a question at most; the rest is cut.
        num_workers: of each loader; None for a default by the cores here.

    Raises:
        ValueError: for lengths that leave no room for the context, or another argument that cannot be.
        FileNotFoundError: for a folder that does not exist.
    """

    def __init__(
        self,
        path: str = "rajpurkar/squad_v2",
        name: str | None = None,
        tokenizer: str | None = None,
        pad_token: str | None = None,
        batch_size: int = 32,
        max_length: int = 384,
        stride: int = 128,
        max_question: int = 64,
        num_workers: int | None = None,
    ) -> None:
        super().__init__(path, name, tokenizer, batch_size, max_length, num_workers)
        room = max_length - max_question - 4  # up to four special tokens (RoBERTa)
        if not 0 <= stride < room:
            raise ValueError(
                f"stride={stride}: must be from 0 to {room - 1}, below what max_length={max_length} leaves for the "
                f"context beside max_question={max_question}"
            )
        self.pad_token = pad_token
        self.stride = stride
        self.max_question = max_question
        self.examples: Dataset | None = None
        self.windows: dict[str, Dataset] = {}

    @property
    def unanswerable(self) -> bool:
        """Whether some of the evaluation's questions have no answer in their context, as in v2."""
        return self.examples is not None and any(not answers["text"] for answers in self.examples["answers"])

    def prepare_data(self) -> None:
        """Downloads and tokenises once a node; every process then reads the cache."""
        self._cut("train", training=True)
        self._cut("validation", training=False)

    def setup(self, stage: str) -> None:
        """Reads the windows of a stage ("fit", "validate", "test" or "predict") from the cache."""
        self.examples = self._rows("validation")
        self.windows["validation"] = self._cut("validation", training=False)
        if stage == "fit":
            self.windows["train"] = self._cut("train", training=True)

    def train_dataloader(self) -> DataLoader:
        """Loads the training rows shuffled, without the last incomplete batch."""
        return self._loader(self.windows["train"], self._collate, training=True)

    def val_dataloader(self) -> DataLoader:
        """Loads the windows of the validation split, in order."""
        return self._loader(self.windows["validation"], self._collate)

    def test_dataloader(self) -> DataLoader:
        """Loads the windows of the validation split, in order."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Loads the windows of the validation split, in order."""
        return self.val_dataloader()

    def _official(self, folder: Path) -> DatasetDict | None:
        return squad_documents(folder)

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer = load_tokenizer(self.tokenizer_path, self.pad_token)
        if not tokenizer.is_fast:
            raise ValueError(
                f"tokenizer={self.tokenizer_path!r} cannot say which characters a token covers: give a fast one"
            )
        return separate(tokenizer)

    def _cut(self, split: str, training: bool) -> Dataset:
        rows = self._rows(split)
        check_columns(rows, COLUMNS, self.path)
        lengths = {"max_length": self.max_length, "stride": self.stride, "max_question": self.max_question}
        return rows.map(
            cut_windows,
            batched=True,
            with_indices=True,
            fn_kwargs={"tokenizer": self.tokenizer, "training": training, **lengths},
            remove_columns=rows.column_names,
            desc=f"Cutting SQuAD {split} into windows",
        )

    def _collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        kept = {name: [row.pop(name) for row in rows] for name in ("offsets", "windows") if name in rows[0]}
        batch = dict(self.tokenizer.pad(rows, return_tensors="pt"))
        if "offsets" in kept:
            batch["offsets"] = torch.full((*batch["input_ids"].shape, 2), -1)
            for row, offsets in zip(batch["offsets"], kept["offsets"], strict=True):
                row[: len(offsets)] = torch.as_tensor(offsets)
            batch["windows"] = torch.as_tensor(kept["windows"])
        return batch
