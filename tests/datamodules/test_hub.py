"""Loading by hub id or folder: each failure in one clear line, and fast."""

import time
from types import SimpleNamespace

import datasets
import pytest

from datamodules import hub
from tests.real import DATA, datasets_cache, needs_data  # noqa: F401


@needs_data
def test_a_folder_loads_as_the_hub_would():
    rows = hub.load(str(DATA / "glue"), "rte", "validation")
    assert len(rows) == 277
    assert rows.features["label"].names == ["entailment", "not_entailment"]
    assert hub.splits(str(DATA / "cifar10")) == ["train", "test"]


@needs_data
@pytest.mark.parametrize("streaming", [False, True])
def test_an_unknown_split_lists_the_valid_ones(streaming):
    with pytest.raises(ValueError, match=r"split='val'.*train, test"):
        hub.load(str(DATA / "adult"), None, "val", streaming=streaming)


@needs_data
@pytest.mark.parametrize("name", ["sst-2", None])
def test_an_unknown_or_missing_configuration_lists_the_valid_ones(name):
    with pytest.raises(ValueError, match=r"name=.*'cola'.*'wnli'"):
        hub.load(str(DATA / "glue"), name, "train")


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path='.*nowhere': no such folder"):
        hub.load(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="holds no data files"):
        hub.load(str(tmp_path))


def test_an_empty_split_is_refused(tmp_path):
    for split, rows in {"train": [1, 2], "test": []}.items():
        data = datasets.Dataset.from_dict({"x": rows}, features=datasets.Features({"x": datasets.Value("int64")}))
        data.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    with pytest.raises(ValueError, match="split 'test' is empty"):
        hub.load(str(tmp_path), None, "train")


@pytest.mark.parametrize("offline", [True, False])
def test_an_unreachable_hub_fails_in_seconds_and_names_the_argument(monkeypatch, offline):
    def nobody_answers(*args, **kwargs):
        raise OSError("no route to host")

    if not offline:
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", nobody_answers)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"path='nobody/nothing'.*give path=<folder"):
        hub.load("nobody/nothing")
    assert time.monotonic() - start < 10  # not the 23 s of load_dataset's retries
    assert datasets.config.HF_HUB_OFFLINE is offline  # as it was


def test_a_gated_and_an_unknown_data_set_say_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: SimpleNamespace())
    messages = {
        "owner/gated": ("Dataset 'owner/gated' is a gated dataset on the Hub.", PermissionError, "accept its terms"),
        "owner/typo": ("Dataset 'owner/typo' doesn't exist on the Hub", ValueError, "no such public data set"),
    }
    for path, (text, kind, remedy) in messages.items():

        def refuse(*args, text=text, **kwargs):
            raise datasets.exceptions.DatasetNotFoundError(text)

        monkeypatch.setattr("datasets.load_dataset", refuse)
        with pytest.raises(kind, match=remedy):
            hub.load(path)
