"""What every text data module shares: a data set, a tokenizer, and loaders of rows tokenised once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
from torch.utils.data import DataLoader

from datamodules.hub import load, local_folder
from datamodules.loaders import check_batch_size, loader_options, make_loader

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedTokenizerBase


class TextDataModule(L.LightningDataModule):
    """Loads and tokenises splits; a subclass says which, and how.

    Args:
        path: data set's hub id, or a folder in the hub's layout.
        name: configuration of the data set.
        tokenizer: hub id or folder of the tokenizer; None for that of the model which the Trainer trains.
        batch_size: rows a batch and process.
        max_length: tokens a row at most.
        num_workers: of each loader; None for a default by the cores here.

    Raises:
        ValueError: for a batch size, length or number of workers that cannot be.
        FileNotFoundError: where `path` or the tokenizer's can only be a folder, and there is none.
    """

    def __init__(
        self,
        path: str,
        name: str | None,
        tokenizer: str | None,
        batch_size: int,
        max_length: int,
        num_workers: int | None,
    ) -> None:
        super().__init__()
        if max_length < 8:
            raise ValueError(f"max_length={max_length}: must be at least 8 tokens")
        local_folder(path)  # a folder that is missing is named before anything else starts
        if tokenizer is not None:
            local_folder(tokenizer)
        self.path = path
        self.name = name
        self.batch_size = check_batch_size(batch_size)
        self.max_length = max_length
        self._options = loader_options(num_workers)
        self._raw: dict[str, Dataset] = {}
        self._is_official = False
        self._tokenizer_path = tokenizer
        self._tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def tokenizer_path(self) -> str:
        """Hub id or folder of the tokenizer.

        Raises:
            ValueError: where none was given, and the Trainer has no model that says.
        """
        model = getattr(self.trainer, "lightning_module", None)
        path = self._tokenizer_path or getattr(model, "path", None)
        if path is None:
            raise ValueError("tokenizer=None: give its hub id or folder, or a Trainer with a model that has a path")
        return str(path)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded when first asked for."""
        if self._tokenizer is None:
            self._tokenizer = self._load_tokenizer()
        return self._tokenizer

    def _load_tokenizer(self) -> PreTrainedTokenizerBase:
        raise NotImplementedError

    def _official(self, folder: Path) -> DatasetDict | None:
        """The splits of a folder in the data set's own layout; None where it has the hub's."""
        return None

    def _rows(self, split: str) -> Dataset:
        if not self._raw:
            folder = local_folder(self.path)
            self._raw |= (self._official(folder) if folder is not None else None) or {}
            self._is_official = bool(self._raw)
        if split not in self._raw:
            if self._is_official:
                raise ValueError(f"path={self.path!r} has no file of split {split!r}; it has {', '.join(self._raw)}")
            self._raw[split] = load(self.path, self.name, split)
        return self._raw[split]

    def _has(self, split: str) -> bool:
        """Whether the data set has this split, with rows."""
        try:
            self._rows(split)
        except ValueError:
            return False
        return True

    def _loader(
        self, rows: Dataset, collate: Callable[[list[dict[str, Any]]], Any], training: bool = False
    ) -> DataLoader:
        """Shuffled, without the last incomplete batch, in training; in order otherwise."""
        return make_loader(
            rows,  # type: ignore[arg-type]
            self.batch_size,
            self.trainer,
            training,
            collate_fn=collate,
            **self._options,
        )


def check_columns(rows: Dataset, columns: tuple[str, ...], path: str) -> None:
    """Refuses a data set without the columns that are needed.

    Args:
        rows: one split.
        columns: names.
        path: of the data set, for the message.

    Raises:
        ValueError: naming what is missing, and what there is.
    """
    absent = [column for column in columns if column not in rows.column_names]
    if absent:
        raise ValueError(f"path={path!r} has no column {', '.join(absent)}; it has {', '.join(rows.column_names)}")
