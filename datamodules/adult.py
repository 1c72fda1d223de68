"""UCI Adult, census income (Becker and Kohavi 1996): who earns more than 50,000 dollars a year."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader

from datamodules import hub
from datamodules.adult_table import CATEGORICAL, NUMERIC, Encoder, Table, read_hub, read_raw
from datamodules.loaders import Columns, as_fetched, check_batch_size, loader_options, make_loader


class Arrays(NamedTuple):
    """Holds a split in the form that XGBoost takes.

    Attributes:
        features: (N, 14) float32, the numbers and then the categories' codes; NaN where missing.
        labels: (N,) float32, 1 for more than 50,000 dollars.
        names: of the 14 features.
        types: of the 14 features: "q" for numbers, "c" for categories.
    """

    features: np.ndarray
    labels: np.ndarray
    names: list[str]
    types: list[str]


class AdultDataModule(L.LightningDataModule):
    """Loads UCI Adult as batches of (numbers (B, 6) float32, categories (B, 8) int64, labels (B,) float32).

    A missing number is NaN. A missing category has code 0, as has one that is not in the training part. `arrays(split)`
    returns a split in the form that XGBoost takes.

    Validation is a stratified part of the training split. The test split is the official one; for a source without it,
    such as the default hub id, it is a stratified third of the rows, as many as the official one has.

    Args:
        path: hub id; a folder in the hub's layout; or UCI's own folder with `adult.data` and `adult.test`.
        name: configuration, where there are several.
        batch_size: of every split; None for a whole split at once.
        val_fraction: part of the training split to validate on, in (0, 1).
        standardise: whether to standardise numbers by the training part's mean and deviation, which networks need and
            trees do not.
        seed: of the splits.
        num_workers: of each loader; 0 is fastest for a table in memory.

    Raises:
        ValueError: for an argument out of range; in `setup`, for data with other columns or labels.
        FileNotFoundError: for a folder that is missing.
    """

    label_names = ("<=50K", ">50K")

    def __init__(
        self,
        path: str = "scikit-learn/adult-census-income",
        name: str | None = None,
        batch_size: int | None = 256,
        val_fraction: float = 0.1,
        standardise: bool = True,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 < val_fraction < 1.0:
            raise ValueError(f"val_fraction={val_fraction}: give a part of the training split, between 0 and 1")
        folder = hub.local_folder(path)
        self.raw = folder if folder is not None and (folder / "adult.data").is_file() else None
        self.path = path
        self.name = name
        self.batch_size = batch_size if batch_size is None else check_batch_size(batch_size)
        self.val_fraction = val_fraction
        self.standardise = standardise
        self.seed = seed
        self.options = loader_options(num_workers) | {"collate_fn": as_fetched}
        self.splits: dict[str, Columns] = {}

    @property
    def category_sizes(self) -> list[int]:
        """Number of codes of each categorical column, 0 included; known after `setup`."""
        return self.encoder.sizes

    def prepare_data(self) -> None:
        """Downloads the data once a node."""
        if self.raw is None:
            hub.load(self.path, self.name, "train")

    def setup(self, stage: str) -> None:
        """Reads and encodes all splits; a tenth of a second from parquet."""
        if self.splits:
            return
        tables = _read_raw(self.raw) if self.raw is not None else _read_hub(self.path, self.name)
        rest, test = tables if len(tables) == 2 else self._split(tables[0], 1 / 3)
        train, val = self._split(rest, self.val_fraction)
        self.encoder = Encoder.fit(train, self.standardise)
        for split, table in {"train": train, "val": val, "test": test}.items():
            self.splits[split] = Columns(*map(torch.from_numpy, self.encoder(table)))

    def arrays(self, split: str) -> Arrays:
        """Returns a split in the form that XGBoost takes.

        Args:
            split: "train", "val" or "test".

        Raises:
            ValueError: for an unknown split.
            RuntimeError: before `setup`.
        """
        if not self.splits:
            raise RuntimeError("arrays() before setup(): call prepare_data() and setup('fit') first")
        if split not in self.splits:
            raise ValueError(f"split={split!r}: choose one of {', '.join(self.splits)}")
        numbers, categories, labels = (tensor.numpy() for tensor in self.splits[split].tensors)
        codes = np.where(categories == 0, np.nan, categories).astype(np.float32)
        types = ["q"] * len(NUMERIC) + ["c"] * len(CATEGORICAL)
        return Arrays(np.hstack([numbers, codes]), labels, [*NUMERIC, *CATEGORICAL], types)

    def train_dataloader(self) -> DataLoader:
        """Shuffled, without the last incomplete batch; a whole split at once is left in order."""
        size = self.batch_size
        if size is None or size >= len(self.splits["train"]):
            return self._loader("train")
        return make_loader(self.splits["train"], size, self.trainer, training=True, **self.options)

    def val_dataloader(self) -> DataLoader:
        """Returns the validation part of the training split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the test split, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Returns the test split, in order."""
        return self._loader("test")

    def _split(self, table: Table, fraction: float) -> tuple[Table, Table]:
        rows = np.arange(len(table.labels))
        first, second = train_test_split(rows, test_size=fraction, random_state=self.seed, stratify=table.labels)
        return table.take(np.sort(first)), table.take(np.sort(second))

    def _loader(self, split: str) -> DataLoader:
        rows: Any = self.splits[split]
        return make_loader(rows, self.batch_size or len(rows), self.trainer, **self.options)


def _read_raw(folder: Path) -> list[Table]:
    return [read_raw(folder / "adult.data"), read_raw(folder / "adult.test")]


def _read_hub(path: str, name: str | None) -> list[Table]:
    train = read_hub(hub.load(path, name, "train"), f"{path}, split 'train'")
    if "test" not in hub.splits(path, name):
        return [train]
    return [train, read_hub(hub.load(path, name, "test"), f"{path}, split 'test'")]
