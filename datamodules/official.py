"""GLUE and SQuAD as their own sites distribute them, and GLUE as plain CSV or TSV files.

The hub's layout needs none of this: `datamodules.hub` loads it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import DatasetDict

FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
"""Folders of GLUE's own downloads."""

SPLITS = {
    "train": "train",
    "dev": "validation",
    "validation": "validation",
    "test": "test",
    "dev_matched": "validation_matched",
    "dev_mismatched": "validation_mismatched",
    "validation_matched": "validation_matched",
    "validation_mismatched": "validation_mismatched",
    "test_matched": "test_matched",
    "test_mismatched": "test_mismatched",
}
"""Splits by the name of their file."""

COLUMNS = {
    "mrpc": {"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"},
    "mnli": {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
    "qqp": {"is_duplicate": "label"},
    "stsb": {"score": "label"},
}
"""The hub's names of GLUE's own columns, where they differ."""


def glue_tables(folder: Path, task: str, columns: Sequence[str], labels: Sequence[str]) -> DatasetDict | None:
    """Reads a folder of CSV or TSV files, such as GLUE's own downloads, one file a split.

    Args:
        folder: with the files, or with a folder of the task's name (the hub's or GLUE's) that holds them.
        task: name of the task.
        columns: of its sentences, in the hub's names.
        labels: names of its classes in order; none for a regression.

    Returns:
        The splits, with the hub's names of columns, splits and classes; None where there are no such files.

    Raises:
        ValueError: for a file without the columns, or a label that the task does not have.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value  # two seconds: late

    inner = next((folder / name for name in (task, FOLDERS[task]) if (folder / name).is_dir()), folder)
    files = {SPLITS[path.stem]: path for path in sorted(inner.glob("*.[ct]sv")) if path.stem in SPLITS}
    if not files:
        return None
    label = ClassLabel(names=list(labels)) if labels else Value("float32")
    features = Features({column: Value("string") for column in columns} | {"label": label, "idx": Value("int32")})
    splits = {}
    for split, path in files.items():
        rows = list(_table(path, task, columns, labels))
        splits[split] = Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)
    return DatasetDict(splits)


def _table(path: Path, task: str, columns: Sequence[str], labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Reads the rows of one file; GLUE's own TSV knows no quotes, and CoLA's no header."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix == ".csv":
            reader = csv.DictReader(file)
        else:
            first = file.readline().rstrip("\r\n").split("\t")
            names: list[str] | None = first
            if task == "cola" and "sentence" not in first:
                names = ["source", "label", "mark", "sentence"]
                file.seek(0)
            reader = csv.DictReader(file, names, delimiter="\t", quoting=csv.QUOTE_NONE)
        renamed = {COLUMNS.get(task, {}).get(name, name): name for name in reader.fieldnames or ()}
        needed = columns if path.stem.startswith("test") else (*columns, "label")
        absent = [column for column in needed if column not in renamed]
        if absent:
            raise ValueError(
                f"{path} has no column {', '.join(absent)}; it has {', '.join(reader.fieldnames or ())}: rename its "
                "columns as the hub's data set has them"
            )
        for index, row in enumerate(reader):
            text = row[renamed["label"]] if "label" in renamed else None
            yield {column: row[renamed[column]] for column in columns} | {
                "label": _label(text, labels, f"{path}, row {index}"),
                "idx": index,
            }


def _label(text: str | None, labels: Sequence[str], where: str) -> float:
    """Reads a number, or a class by its name; -1 where it is not public."""
    if text in labels:
        return labels.index(text)  # type: ignore[arg-type]
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        value = float("nan")
    if not labels:
        return value
    if value not in (-1.0, *range(len(labels))):
        raise ValueError(f"{where}: label {text!r}: give one of {', '.join(labels)}, or its number from 0")
    return int(value)


def squad_documents(folder: Path) -> DatasetDict | None:
    """Reads SQuAD's own nested JSON: {"data": [{"title", "paragraphs": [{"context", "qas": [...]}]}]}.

    Args:
        folder: with a file train*.json and one dev*.json or validation*.json, such as train-v2.0.json.

    Returns:
        The splits, one question a row, in the hub's columns; None where there are no such files.

    Raises:
        ValueError: for a file that is no JSON, or does not have these keys.
    """
    from datasets import Dataset, DatasetDict, Features, Value

    kinds = {"train": ("train",), "validation": ("dev", "validation")}
    found = {
        split: path
        for split, starts in kinds.items()
        for path in sorted(folder.glob("*.json"))
        if path.stem.startswith(starts)
    }
    documents = {split: _document(path) for split, path in found.items()}
    if not documents or not all(isinstance(whole, dict) and "data" in whole for whole in documents.values()):
        return None
    answers = {"text": [Value("string")], "answer_start": [Value("int32")]}
    texts = {name: Value("string") for name in ("id", "title", "context", "question")}
    features = Features(texts | {"answers": answers})
    splits = {}
    for split, whole in documents.items():
        try:
            rows = list(_questions(whole))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{found[split]} is not SQuAD's JSON: {error!r} is missing; give data, paragraphs, context, qas, id, "
                "question and answers with text and answer_start"
            ) from error
        splits[split] = Dataset.from_list(rows, features=features)
    return DatasetDict(splits)


def _document(path: Path) -> Any:
    """Reads a file of JSON; None for one that has a value a line, as the hub's layout may."""
    text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise ValueError(f"{path} is not JSON ({error}): download it again") from error


def _questions(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for article in whole["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question["answers"]
                yield {
                    "id": question["id"],
                    "title": article.get("title", ""),
                    "context": paragraph["context"],
                    "question": question["question"],
                    "answers": {key: [answer[key] for answer in answers] for key in ("text", "answer_start")},
                }
