"""UCI Adult in every spelling: counts, categories of the training part alone, missing values, and what is refused."""

import shutil

import datasets
import numpy as np
import pytest

from datamodules import AdultDataModule
from datamodules.adult_table import CATEGORICAL, UCI_ORDER
from tests.real import DATA, datasets_cache, needs_data  # noqa: F401


def load(path, **arguments):
    data = AdultDataModule(str(path), **arguments)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def adult():
    return load(DATA / "adult")


def write_raw(folder, train, test=None):
    folder.mkdir(exist_ok=True)
    (folder / "adult.data").write_text("\n".join(train) + "\n\n")
    (folder / "adult.test").write_text("|1x3 Cross validator\n" + "\n".join(test or train).replace("K", "K.") + "\n")
    return folder


def row(age=30, country="United-States", label=">50K"):
    return f"{age}, Private, 1000, Bachelors, 13, Divorced, ?, Husband, White, Male, 0, 0, 40, {country}, {label}"


ROWS = [row(20 + i, label="<=50K" if i % 2 else ">50K") for i in range(40)]


@needs_data
def test_counts_and_official_test_part(adult):
    assert {name: len(split) for name, split in adult.splits.items()} == {"train": 29304, "val": 3257, "test": 16281}
    assert adult.arrays("test").labels.sum() == 3846
    numbers, categories, labels = next(iter(adult.train_dataloader()))
    assert (numbers.shape, categories.shape, labels.shape) == ((256, 6), (256, 8), (256,))
    everything = adult.splits["train"].tensors
    np.testing.assert_allclose(everything[0].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(everything[0].std(0), 1, atol=1e-3)
    missing = sum((adult.splits[split].tensors[1] == 0).sum(0) for split in ("train", "val"))
    assert missing[[0, 3]].tolist() == [1836, 1843]  # "?" in workclass and occupation, as adult.names counts them


@needs_data
def test_ucis_own_files_and_the_hubs_spellings_give_the_same(adult, tmp_path):
    raw = load(DATA / "adult" / "raw")
    source = datasets.load_dataset(str(DATA / "adult"))["train"]
    names = source.features["income"].names
    words = source.remove_columns("income").add_column("income", [names[i] for i in source["income"][:]])
    dotted = words.rename_columns({name: name.replace("-", ".") for name in UCI_ORDER if "-" in name})
    dotted.to_csv(tmp_path / "adult.csv")
    hub = load(tmp_path)  # one split, as the default hub id has
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(raw.arrays(split).features, adult.arrays(split).features)
    assert sum(len(split) for split in hub.splits.values()) == 32561
    assert len(hub.splits["test"]) == 10854
    assert hub.arrays("test").labels.mean() == pytest.approx(0.2408, abs=1e-3)


@needs_data
def test_arrays_are_the_batches_with_nan_where_missing(adult):
    arrays = adult.arrays("val")
    numbers, categories, labels = (np.concatenate(part) for part in zip(*adult.val_dataloader(), strict=True))
    np.testing.assert_array_equal(arrays.features[:, :6], numbers)
    np.testing.assert_array_equal(np.nan_to_num(arrays.features[:, 6:]), categories)
    np.testing.assert_array_equal(arrays.labels, labels)
    assert (len(arrays.names), "".join(arrays.types)) == (14, "qqqqqqcccccccc")
    assert arrays.features.dtype == np.float32


def test_categories_come_from_the_training_part_alone(tmp_path):
    test = [row(country="Narnia"), row(country="?"), row(country="United-States", label="<=50K")]
    data = load(write_raw(tmp_path / "raw", ROWS, test), standardise=False)
    country = CATEGORICAL.index("native-country")
    assert data.category_sizes[country] == 2
    assert data.splits["test"].tensors[1][:, country].tolist() == [0, 0, 1]
    assert data.splits["test"].tensors[2].tolist() == [1, 1, 0]
    assert data.splits["test"].tensors[0][0].tolist() == [30, 1000, 13, 0, 0, 40]
    assert data.category_sizes[CATEGORICAL.index("occupation")] == 1  # missing throughout


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (row(label="yes"), r"adult\.data, row 40: label 'yes'; must be '<=50K' or '>50K'"),
        (row(age="old"), r"adult\.data, age: .*'old'"),
        ("1, 2, 3", r"row 40: 3 values, Adult has 15"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    data = AdultDataModule(str(write_raw(tmp_path / "raw", [*ROWS, line], ROWS)))
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_bad_folders_columns_and_splits_are_named(tmp_path):
    raw = write_raw(tmp_path / "raw", ROWS)
    data = AdultDataModule(str(raw))
    with pytest.raises(RuntimeError, match="before setup"):
        data.arrays("train")
    data.setup("fit")
    with pytest.raises(ValueError, match=r"split='dev': choose one of train, val, test"):
        data.arrays("dev")
    shutil.move(raw / "adult.test", raw / "other")
    with pytest.raises(FileNotFoundError, match=r"adult\.test is missing"):
        AdultDataModule(str(raw)).setup("fit")
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "train.csv").write_text("age,income\n3,<=50K\n")
    with pytest.raises(ValueError, match="lacks the columns workclass"):
        AdultDataModule(str(tmp_path / "csv")).setup("fit")
