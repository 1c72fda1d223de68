"""CIFAR-10 on real images: shapes, splits, augmentation, and what is refused."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import CIFAR10DataModule
from tests.real import DATA, datasets_cache, needs_data  # noqa: F401

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.fixture(scope="module")
def data():
    data = CIFAR10DataModule(str(DATA / "cifar10"), num_workers=0)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def write(folder, labels=(0, 1) * 10, size=(32, 32), broken=None, names=("cat", "dog")):
    """A folder in the hub's layout with random images, one of which may be broken."""
    generator = np.random.default_rng(0)
    images = [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in labels]
    feature = datasets.Image()
    encoded = [feature.encode_example(image) for image in images]
    if broken is not None:
        encoded[broken] = {"bytes": encoded[broken]["bytes"][:60], "path": None}
    table = datasets.Dataset.from_dict({"image": encoded, "fine": list(labels)}).cast_column("image", feature)
    table.info.features = datasets.Features({"image": feature, "fine": datasets.ClassLabel(names=list(names))})
    for split in ("train", "test"):
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return str(folder)


@needs_data
def test_shapes_counts_and_names(data):
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 9000, "val": 1000, "test": 2000}
    assert data.label_names == NAMES
    assert data.splits["val"].labels.bincount().tolist() == [100] * 10
    images, labels = next(iter(data.train_dataloader()))
    assert images.shape == (128, 3, 32, 32)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    everything = torch.cat([images for images, _ in data.val_dataloader()])
    torch.testing.assert_close(everything.mean((0, 2, 3)), torch.zeros(3), atol=0.06, rtol=0)
    torch.testing.assert_close(everything.std((0, 2, 3)), torch.ones(3), atol=0.06, rtol=0)


@needs_data
def test_the_same_seed_gives_the_same_split_and_training_images_vary(data):
    again = CIFAR10DataModule(str(DATA / "cifar10"), num_workers=0)
    again.setup("fit")
    assert torch.equal(again.splits["val"].images, data.splits["val"].images)
    train, val = data.splits["train"], data.splits["val"]
    assert not torch.equal(train[0][0], train[0][0])
    assert torch.equal(val[0][0], val[0][0])


def test_other_spellings_of_the_columns_and_a_small_split(tmp_path):
    data = CIFAR10DataModule(write(tmp_path), num_workers=0, val_fraction=0.5)
    data.setup("fit")
    assert data.label_names == ("cat", "dog")
    assert len(next(iter(data.train_dataloader()))[1]) == 10  # fewer than a batch, but not none


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"broken": 7}, r"split 'train', row 7: broken image"),
        ({"labels": (0, 1, 0, -1)}, r"row 3: label -1 is outside 0\.\.1"),
        ({"size": (16, 16)}, r"row 0: image of \(16, 16\) pixels"),
    ],
)
def test_what_is_refused(tmp_path, wrong, message):
    data = CIFAR10DataModule(write(tmp_path, **wrong), num_workers=0)
    with pytest.raises(ValueError, match=message):
        data.setup("fit")


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CIFAR10DataModule(str(tmp_path / "nowhere"))
    for arguments in ({"val_fraction": 1.0}, {"batch_size": 0}, {"num_workers": -1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            CIFAR10DataModule(**arguments)
