"""GLUE: nine tasks of one or two sentences (Wang et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader

from datamodules.official import glue_tables
from datamodules.pretrained import load_tokenizer
from datamodules.text import TextDataModule, check_columns

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class GLUETask:
    """Holds what is particular to one task.

    Args:
        columns: of its one or two sentences.
        labels: their names, in order; none for a regression.
        metrics: that GLUE reports on it, as `TextClassifier` names them.
        validation: its labelled validation splits.
        test: its test splits, without labels on the hub (MRPC's has them).
    """

    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    validation: tuple[str, ...] = ("validation",)
    test: tuple[str, ...] = ("test",)


_SENTENCES = ("sentence1", "sentence2")
_ENTAILMENT = ("entailment", "not_entailment")

TASKS: dict[str, GLUETask] = {
    "cola": GLUETask(("sentence",), ("unacceptable", "acceptable"), ("matthews",)),
    "sst2": GLUETask(("sentence",), ("negative", "positive")),
    "mrpc": GLUETask(_SENTENCES, ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "stsb": GLUETask(_SENTENCES, (), ("pearson", "spearman")),
    "qqp": GLUETask(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "mnli": GLUETask(
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        validation=("validation_matched", "validation_mismatched"),
        test=("test_matched", "test_mismatched"),
    ),
    "qnli": GLUETask(("question", "sentence"), _ENTAILMENT),
    "rte": GLUETask(_SENTENCES, _ENTAILMENT),
    "wnli": GLUETask(_SENTENCES, ("not_entailment", "entailment")),
}
"""The nine tasks by name."""


class GLUEDataModule(TextDataModule):
    """Provides batches of one GLUE task, padded to their longest row.

    A batch is what the tokenizer gives (`input_ids`, `attention_mask`, with BERT `token_type_ids`; each (B, L),
    int64) and `labels` (B,): int64, or float32 for STS-B.

    Validation takes all of the task's validation splits, one loader each. Testing takes the test splits where
    their labels are public (MRPC), and the validation splits otherwise. Prediction takes the test splits, or the
    validation splits where there are none.

    `TextClassifier` reads `num_labels`, `metrics` and `evaluation_names` off it, so that the task is configured in one
    place.

    Args:
        task: one of `TASKS`.
        path: hub id; or a folder in the hub's layout, in that of GLUE's own downloads, or of CSV or TSV files with the
            hub's columns (train.csv, validation.csv).
        tokenizer: hub id or folder of any tokenizer that transformers loads; None for that of the model which the
            Trainer trains.
        pad_token: a token of its vocabulary to pad with, for a tokenizer without one (GPT-2: "<|endoftext|>").
        batch_size: rows a batch and process.
        max_length: tokens a row at most; longer ones are cut, the longer sentence first.
        num_workers: of each loader; None for a default by the cores here.

    Raises:
        ValueError: for an unknown task, or another argument that cannot be.
        FileNotFoundError: for a folder that does not exist.
    """

    def __init__(
        self,
        task: str = "sst2",
        path: str = "nyu-mll/glue",
        tokenizer: str | None = None,
        pad_token: str | None = None,
        batch_size: int = 32,
        max_length: int = 128,
        num_workers: int | None = None,
    ) -> None:
        if task not in TASKS:
            raise ValueError(f"task={task!r}: choose one of {', '.join(TASKS)}")
        super().__init__(path, task, tokenizer, batch_size, max_length, num_workers)
        self.task = task
        self.spec = TASKS[task]
        self.pad_token = pad_token
        self.metrics = self.spec.metrics
        self.num_labels = len(self.spec.labels) or 1
        self.splits: dict[str, Dataset] = {}

    def prepare_data(self) -> None:
        """Downloads and tokenises once a node; every process then reads the cache."""
        for split in ("train", *self.spec.validation, *self._public_tests()):
            self._tokenised(split)

    def setup(self, stage: str) -> None:
        """Reads the splits of a stage ("fit", "validate", "test" or "predict") from the cache."""
        names = {name for kind in _KINDS[stage] for name in self._split_names(kind)}
        self.splits |= {name: self._tokenised(name) for name in names if name not in self.splits}

    def evaluation_names(self, stage: str) -> list[str]:
        """Names each loader of a stage ("val" or "test"): "" for the first; MNLI's second is "mismatched"."""
        return ["" if not i else name.rpartition("_")[2] for i, name in enumerate(self._split_names(stage))]

    def train_dataloader(self) -> DataLoader:
        """Loads the training rows shuffled, without the last incomplete batch."""
        return self._loader(self.splits["train"], self._collate(), training=True)

    def val_dataloader(self) -> list[DataLoader]:
        """Makes one loader a validation split."""
        return self._loaders("val")

    def test_dataloader(self) -> list[DataLoader]:
        """Makes one loader a labelled test split, or a validation split where there is none."""
        return self._loaders("test")

    def predict_dataloader(self) -> list[DataLoader]:
        """Makes one loader a test split, or a validation split where there is none."""
        return self._loaders("predict")

    def _official(self, folder: Path) -> DatasetDict | None:
        return glue_tables(folder, self.task, self.spec.columns, self.spec.labels)

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self.tokenizer_path, self.pad_token)

    def _loaders(self, kind: str) -> list[DataLoader]:
        return [self._loader(self.splits[name], self._collate()) for name in self._split_names(kind)]

    def _collate(self) -> Any:
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(self.tokenizer)

    def _split_names(self, kind: str) -> tuple[str, ...]:
        tests = self._public_tests() if kind in ("test", "predict") else ()
        if kind == "test" and not all(_labelled(self._rows(name)) for name in tests):
            tests = ()
        return {"train": ("train",), "val": self.spec.validation}.get(kind, tests or self.spec.validation)

    def _public_tests(self) -> tuple[str, ...]:
        return tuple(name for name in self.spec.test if self._has(name))

    def _tokenised(self, split: str) -> Dataset:
        rows = self._rows(split)
        check_columns(rows, (*self.spec.columns, "label"), self.path)
        self._check_labels(rows, split)
        return rows.map(
            _tokenise,
            batched=True,
            fn_kwargs={"tokenizer": self.tokenizer, "columns": self.spec.columns, "max_length": self.max_length},
            remove_columns=[column for column in rows.column_names if column != "label"],
            desc=f"Tokenising {self.task} {split}",
        )

    def _check_labels(self, rows: Dataset, split: str) -> None:
        if not self.spec.labels or (split in self.spec.test and not _labelled(rows)):
            return
        labels = np.asarray(rows.with_format("numpy")["label"][:])
        last = len(self.spec.labels) - 1
        wrong = np.flatnonzero((labels < 0) | (labels > last))
        if len(wrong):
            raise ValueError(
                f"path={self.path!r}: row {wrong[0]} of {self.task}'s split {split!r} has label {labels[wrong[0]]}, "
                f"and the task has 0 to {last} ({', '.join(self.spec.labels)}): mend or drop the row"
            )


_KINDS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("predict",)}


def _labelled(rows: Dataset) -> bool:
    """Tests whether the labels are public; GLUE hides them as -1."""
    return bool(rows[0]["label"] != -1)


def _tokenise(
    rows: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase, columns: tuple[str, ...], max_length: int
) -> Any:
    return tokenizer(*(rows[column] for column in columns), truncation=True, max_length=max_length)
