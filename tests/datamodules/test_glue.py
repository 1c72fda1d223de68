"""GLUE's tasks on real data: shapes, label names, counts, the cache, and what is refused."""

import numpy as np
import pytest
import torch

from datamodules.glue import TASKS, GLUEDataModule
from datamodules.hub import load
from tests.text import BERT, END, GLUE, GPT2, datasets_cache, needs_data, write_dataset  # noqa: F401

ROWS = {
    "cola": (8551, 1043),
    "sst2": (67349, 872),
    "mrpc": (3668, 408),
    "stsb": (5749, 1500),
    "qqp": (9917, 2000),
    "mnli": (7814, 2001),
    "qnli": (4060, 1403),
    "rte": (2490, 277),
    "wnli": (635, 71),
}


def _data(task="wnli", **arguments):
    return GLUEDataModule(task, **{"path": GLUE, "tokenizer": BERT, "num_workers": 0} | arguments)


@needs_data
@pytest.mark.parametrize("task", TASKS)
def test_columns_labels_and_counts_are_those_of_the_data(task):
    spec = TASKS[task]
    train, validation = load(GLUE, task, "train"), load(GLUE, task, spec.validation[0])
    assert (len(train), len(validation)) == ROWS[task]
    assert set(train.column_names) == {*spec.columns, "label", "idx"}
    if spec.labels:
        assert tuple(train.features["label"].names) == spec.labels
        assert set(np.unique(validation["label"][:])) == set(range(len(spec.labels)))


@needs_data
@pytest.mark.parametrize("task", ["mnli", "stsb", "rte", "cola"])
def test_batches(task):
    data = _data(task, batch_size=8)
    data.setup("validate")
    loaders = data.val_dataloader()
    assert len(loaders) == len(TASKS[task].validation)
    batch = next(iter(loaders[0]))
    assert batch["labels"].shape == (8,)
    assert batch["labels"].dtype == (torch.float32 if task == "stsb" else torch.int64)
    shape = batch["input_ids"].shape
    assert shape == batch["attention_mask"].shape == batch["token_type_ids"].shape
    assert batch["attention_mask"].sum(1).max() == shape[1] <= 128  # padded to the longest, no further
    row = load(GLUE, task, TASKS[task].validation[0])[0]
    texts = [row[column].lower().replace(" ", "") for column in TASKS[task].columns]
    decoded = data.tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True)
    assert decoded.replace(" ", "") == "".join(texts)
    assert data.tokenizer.decode(batch["input_ids"][0]).count("[SEP]") == len(texts)


@needs_data
def test_gpt2_is_padded_on_the_right():
    data = _data(tokenizer=GPT2, pad_token=END, batch_size=16)
    data.setup("validate")
    mask = next(iter(data.val_dataloader()[0]))["attention_mask"]
    assert (mask.diff(dim=1) <= 0).all()  # ones, then zeros
    assert (mask == 0).any()


@needs_data
def test_training_is_shuffled_and_evaluation_in_order():
    data = _data(batch_size=32)
    data.prepare_data()
    data.setup("fit")
    assert len(data.train_dataloader()) == 635 // 32
    first, again = (next(iter(data.train_dataloader()))["labels"] for _ in range(2))
    assert not torch.equal(first, again)
    labels = torch.cat([batch["labels"] for batch in data.val_dataloader()[0]])
    assert labels.tolist() == load(GLUE, "wnli", "validation")["label"][:]


@needs_data
@pytest.mark.parametrize(("task", "test", "predict"), [("mrpc", 1725, 1725), ("wnli", 71, 146), ("qqp", 2000, 2000)])
def test_tests_take_labelled_rows_and_predictions_the_test_split(task, test, predict):
    data = _data(task, batch_size=64)
    data.setup("test")
    data.setup("predict")
    assert sum(len(loader.dataset) for loader in data.test_dataloader()) == test
    assert sum(len(loader.dataset) for loader in data.predict_dataloader()) == predict


@needs_data
def test_names_of_mnlis_two_validation_splits():
    data = _data("mnli")
    assert data.evaluation_names("val") == data.evaluation_names("test") == ["", "mismatched"]
    assert _data("rte").evaluation_names("val") == [""]


@needs_data
def test_a_second_time_comes_from_the_cache(datasets_cache):  # noqa: F811
    def files():
        return {path: path.stat().st_mtime_ns for path in datasets_cache.rglob("*.arrow")}

    _data("wnli").prepare_data()
    before = files()
    data = _data("wnli")  # with a tokenizer of its own, as another process has
    data.prepare_data()
    data.setup("fit")
    assert files() == before
    _data("wnli", max_length=63).prepare_data()  # a length that no other test has
    assert files().keys() > before.keys()


def test_an_unknown_task_lists_the_valid_ones():
    with pytest.raises(ValueError, match="task='sst-2': choose one of cola, sst2, mrpc, stsb, qqp, mnli"):
        GLUEDataModule("sst-2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_length": 0}, "max_length=0"),
        ({"num_workers": -1}, "num_workers=-1"),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        GLUEDataModule(**arguments)


@pytest.mark.parametrize("argument", ["path", "tokenizer"])
def test_a_missing_folder_is_named_at_once(argument):
    with pytest.raises(FileNotFoundError, match="/no/such/folder"):
        GLUEDataModule(**{argument: "/no/such/folder"})


@needs_data
def test_a_tokenizer_without_a_pad_token():
    with pytest.raises(ValueError, match=r"gpt2' has no padding token: give pad_token=.*such as '<\|endoftext\|>'"):
        _data(tokenizer=GPT2).setup("validate")
    with pytest.raises(ValueError, match=r"pad_token='<pad>' is not in the vocabulary"):
        _data(tokenizer=GPT2, pad_token="<pad>").setup("validate")


def test_an_unreachable_hub_is_found_out_within_seconds():
    with pytest.raises(ConnectionError, match=r"nobody/tokenizer.*give a folder with the tokenizer"):
        GLUEDataModule(path=".", tokenizer="nobody/tokenizer").tokenizer  # noqa: B018
    with pytest.raises(ConnectionError, match="give path=<folder"):
        GLUEDataModule(path="nobody/glue", tokenizer="nobody/tokenizer").setup("validate")


def test_no_tokenizer_at_all():
    with pytest.raises(ValueError, match="tokenizer=None"):
        GLUEDataModule().tokenizer  # noqa: B018


def _rows(labels, **columns):
    from datasets import Dataset

    columns = columns or {"sentence": ["a fine film"] * len(labels)}
    return Dataset.from_dict(columns | {"label": labels})


@needs_data
def test_a_label_outside_the_range(tmp_path):
    path = write_dataset(tmp_path, {"train": _rows([0, 1, 5]), "validation": _rows([0, 1])})
    data = _data("sst2", path=path)
    data.name = None  # the folder has one configuration
    with pytest.raises(ValueError, match=r"row 2 of sst2's split 'train' has label 5.*0 to 1 \(negative, positive\)"):
        data.prepare_data()


@needs_data
def test_a_missing_column_and_an_empty_split(tmp_path):
    splits = {"train": _rows([0, 1], text=["a", "b"])}
    data = _data("sst2", path=write_dataset(tmp_path / "column", splits))
    data.name = None
    with pytest.raises(ValueError, match="has no column sentence; it has text, label"):
        data.prepare_data()
    splits = {"train": _rows([0, 1]), "validation": _rows([0, 1]).select([])}
    data = _data("sst2", path=write_dataset(tmp_path / "rows", splits))
    data.name = None
    with pytest.raises(ValueError, match=r"validation.*(empty|no data)"):
        data.setup("validate")
