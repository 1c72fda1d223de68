"""Blocks of text from real columns."""

from itertools import groupby

import pytest
import torch

from datamodules.hub import load
from datamodules.language_modeling import LanguageModelingDataModule
from tests.text import BERT, GLUE, GPT2, datasets_cache, needs_data, small_squad  # noqa: F401


def _data(path=GLUE, name="wnli", column="sentence1", tokenizer=GPT2, **arguments):
    return LanguageModelingDataModule(path, name, column, tokenizer, num_workers=0, **({"max_length": 32} | arguments))


def _decoded(data):
    return data.tokenizer.batch_decode(data.blocks["validation"]["input_ids"][:])


@needs_data
def test_blocks_are_the_running_text(tmp_path):
    path = small_squad(tmp_path)
    data = _data(path, None, "context", batch_size=4)
    data.prepare_data()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["input_ids"].shape == (4, 32)
    assert batch["input_ids"].dtype == torch.int64
    text = "".join(key + "<|endoftext|>" for key, _ in groupby(load(path, None, "validation")["context"]))
    blocks = _decoded(data)
    assert text.startswith("".join(blocks))
    assert len(data.tokenizer(text)["input_ids"]) // 32 == len(blocks)


@needs_data
def test_a_separator_of_ones_own():
    data = _data(separator="\n")
    data.setup("validate")
    assert "<|endoftext|>" not in "".join(_decoded(data))


@needs_data
def test_tests_take_the_test_split_where_there_is_one():
    data = _data()
    data.setup("test")
    assert data.test_split == "test"
    assert len(data.test_dataloader().dataset) == len(data.blocks["test"])
    data = _data(name="qqp", column="question1")
    data.setup("predict")
    assert data.test_split == "validation"


@needs_data
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"column": "text"}, "has no column text; it has sentence1"),
        ({"max_length": 10**6}, "max_length=1000000: split 'validation'"),
        ({"tokenizer": BERT}, "separator=None, and .* has no end-of-text token"),
        ({"validation_split": "dev"}, "split='dev'"),
    ],
)
def test_what_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _data(**arguments).setup("validate")
