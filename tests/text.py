"""What the tests of the text workloads share: real data cut small, tiny networks, and a cache of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DATA = os.environ.get("METALR_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="METALR_DATA, the folder of real data, is not set")

GLUE, SQUAD = f"{DATA}/glue", f"{DATA}/squad_v2"
BERT, GPT2 = f"{DATA}/tokenizers/bert-base-uncased", f"{DATA}/tokenizers/gpt2"
END = "<|endoftext|>"

TINY_BERT = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
TINY_GPT2 = {"n_layer": 1, "n_embd": 16, "n_head": 2}


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps what the tests load and tokenise out of the user's cache, in one place for all modules."""
    from datasets import config

    before = config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = tmp_path_factory.getbasetemp() / "datasets"
    yield config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = before


def write_dataset(folder: Path, splits: dict[str, Any]) -> str:
    """A local data set in the hub's layout, of `datasets.Dataset`s by split."""
    for name, rows in splits.items():
        path = folder / "data" / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path)
    return str(folder)


def small_squad(folder: Path, train: int = 16, validation: int = 40) -> str:
    """The first rows of the real SQuAD 2.0."""
    from datamodules.hub import load

    splits = {
        "train": load(SQUAD, None, "train").select(range(train)),
        "validation": load(SQUAD, None, "validation").select(range(validation)),
    }
    return write_dataset(folder, splits)


def small_glue(folder: Path, *tasks: str, rows: int = 40) -> str:
    """The first rows of some tasks of the real GLUE."""
    from datasets import load_dataset

    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("README.md").write_text(Path(GLUE, "README.md").read_text())
    for task in tasks:
        (folder / task).mkdir()
        for split, data in load_dataset(GLUE, task).items():
            data.select(range(rows)).to_parquet(folder / task / f"{split}-00000-of-00001.parquet")
    return str(folder)
