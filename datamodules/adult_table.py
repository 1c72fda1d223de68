"""The table of UCI Adult: reading its columns in several spellings, and encoding them as numbers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import datasets

NUMERIC = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
CATEGORICAL = (
    "workclass",
    "education",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native-country",
)
LABEL = "income"
UCI_ORDER = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", LABEL),
)
"""Order of the columns in UCI's own files, which have no header."""

MISSING = ("?", "", "nan", "none")
"""Spellings of a missing value; UCI's is "?"."""


@dataclass(frozen=True)
class Table:
    """Holds N rows as read.

    Attributes:
        numbers: (N, 6) float64, in the order of `NUMERIC`; NaN where missing.
        words: (N, 8) str, in the order of `CATEGORICAL`; "" where missing.
        labels: (N,) float32, 1 for more than 50,000 dollars.
    """

    numbers: np.ndarray
    words: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[object]], where: str) -> Table:
        """Makes a table of columns by name, spelt "education-num", "education.num" or "education_num".

        Args:
            columns: values by name.
            where: source of the data, for messages.

        Raises:
            ValueError: for a missing column, a value that is not a number, or a label of neither class.
        """
        spelt = {name.lower().replace(".", "-").replace("_", "-"): values for name, values in columns.items()}
        lacking = [name for name in UCI_ORDER if name not in spelt]
        if lacking:
            raise ValueError(f"{where}: lacks the columns {', '.join(lacking)}; it has {', '.join(columns)}")
        return cls(
            np.stack([_numbers(spelt[name], f"{where}, {name}") for name in NUMERIC], axis=1),
            np.stack([_words(spelt[name]) for name in CATEGORICAL], axis=1),
            _labels(spelt[LABEL], where),
        )

    def take(self, rows: np.ndarray) -> Table:
        """Returns some of the rows."""
        return Table(self.numbers[rows], self.words[rows], self.labels[rows])


def read_hub(rows: datasets.Dataset, where: str) -> Table:
    """Reads a data set of the hub or a folder; labels may be class numbers or strings."""
    columns = {name: rows[name][:] for name in rows.column_names}
    names = getattr(rows.features.get(LABEL), "names", None)
    if names is not None:
        columns[LABEL] = [names[label] if 0 <= label < len(names) else label for label in columns[LABEL]]
    return Table.of(columns, where)


def read_raw(file: Path) -> Table:
    """Reads UCI's `adult.data` or `adult.test`: no header, blanks after commas, a comment line, labels with full stops.

    Raises:
        FileNotFoundError: for a missing file.
        ValueError: for a line with another number of values.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: UCI's folder has adult.data and adult.test")
    with file.open(newline="") as lines:
        rows = [row for row in csv.reader(lines, skipinitialspace=True) if row and not row[0].startswith("|")]
    for number, row in enumerate(rows):
        if len(row) != len(UCI_ORDER):
            raise ValueError(f"{file}, row {number}: {len(row)} values, Adult has {len(UCI_ORDER)}")
    return Table.of(dict(zip(UCI_ORDER, zip(*rows, strict=True), strict=True)), str(file))


@dataclass(frozen=True)
class Encoder:
    """Encodes a table as numbers and codes, with the categories and moments of the training part.

    Attributes:
        categories: values of each categorical column in the training part, sorted; code 0 stands for all others.
        mean: of the numbers, (6,).
        deviation: standard deviation of the numbers, (6,).
    """

    categories: tuple[np.ndarray, ...]
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, train: Table, standardise: bool) -> Encoder:
        """Makes the encoder of a training part."""
        categories = tuple(np.unique(column[column != ""]) for column in train.words.T)
        if not standardise:
            return cls(categories, np.zeros(len(NUMERIC)), np.ones(len(NUMERIC)))
        deviation = np.nanstd(train.numbers, axis=0)
        return cls(categories, np.nanmean(train.numbers, axis=0), np.where(deviation > 0, deviation, 1.0))

    @property
    def sizes(self) -> list[int]:
        """Number of codes of each categorical column, 0 included."""
        return [len(words) + 1 for words in self.categories]

    def __call__(self, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encodes a table: numbers (N, 6) float32, codes (N, 8) int64, labels (N,) float32."""
        numbers = ((table.numbers - self.mean) / self.deviation).astype(np.float32)
        codes = [_codes(column, words) for column, words in zip(table.words.T, self.categories, strict=True)]
        return numbers, np.stack(codes, axis=1), table.labels


def _codes(column: np.ndarray, words: np.ndarray) -> np.ndarray:
    if not len(words):
        return np.zeros(len(column), dtype=np.int64)
    places = np.searchsorted(words, column).clip(max=len(words) - 1)
    return np.where(words[places] == column, places + 1, 0).astype(np.int64)


def _words(values: Sequence[object]) -> np.ndarray:
    words = np.array(["" if value is None else str(value).strip() for value in values])
    return np.where(np.isin(np.char.lower(words), MISSING), "", words)


def _numbers(values: Sequence[object], where: str) -> np.ndarray:
    words = _words(values)
    try:
        return np.where(words == "", "nan", words).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{where}: {error}; give numbers, or '?' where one is missing") from error


def _labels(values: Sequence[object], where: str) -> np.ndarray:
    words = np.char.rstrip(_words(values), ".")
    bad = np.flatnonzero((words != "<=50K") & (words != ">50K"))
    if bad.size:
        raise ValueError(f"{where}, row {bad[0]}: label {values[int(bad[0])]!r}; must be '<=50K' or '>50K'")
    return (words == ">50K").astype(np.float32)
