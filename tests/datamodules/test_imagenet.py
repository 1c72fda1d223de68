"""ImageNet from the hub's layout, from folders of images, and streamed over ranks and workers."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import ImageNetDataModule
from tests.real import DATA, datasets_cache, needs_data  # noqa: F401

CLASSES = 4


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    """`datasets` sleeps for 5 s whenever a stream's threads end."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


def pixel(index):
    """A grey image whose shade is its number."""
    return Image.fromarray(np.full((40, 40, 3), index, dtype=np.uint8))


@pytest.fixture
def shards(tmp_path):
    """48 training images in 8 shards, 8 to validate on; image i has shade i and label i mod 4."""
    feature = datasets.Image()
    features = datasets.Features({"image": feature, "label": datasets.ClassLabel(num_classes=CLASSES)})

    def write(split, shard, indices):
        rows = {"image": [feature.encode_example(pixel(i)) for i in indices], "label": [i % CLASSES for i in indices]}
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(tmp_path / "data" / f"{split}-{shard:05d}-of-00008.parquet")

    for shard in range(8):
        write("train", shard, range(6 * shard, 6 * shard + 6))
        write("validation", shard, [shard])
    return tmp_path


@pytest.fixture
def tree(tmp_path):
    for split in ("train", "val"):
        for label in range(CLASSES):
            folder = tmp_path / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(3):
                pixel(label).save(folder / f"{i}.png")
    return tmp_path


@needs_data
def test_real_images_in_both_modes():
    for streaming in (False, True):
        data = ImageNetDataModule(
            str(DATA / "imagenet"), batch_size=8, resolution=176, num_workers=0, rand_augment=True, streaming=streaming
        )
        data.setup("fit")
        assert data.num_classes == 1000
        assert data.label_names[0] == "tench, Tinca tinca"
        images, labels = next(iter(data.train_dataloader()))
        assert images.shape == (8, 3, 176, 176)
        assert labels.dtype == torch.int64
        assert next(iter(data.val_dataloader()))[0].shape == (8, 3, 176, 176)
    assert sorted(data.splits["validation"].rows.take(2).column_names) == ["image", "label"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_stream_gives_each_image_to_one_rank_and_worker(shards, ranks, workers):
    epochs = [[], []]
    for rank in range(ranks):
        data = ImageNetDataModule(str(shards), batch_size=1, resolution=32, streaming=True, num_workers=workers)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks, training=True)
        data.setup("fit")
        loader = data.train_dataloader()
        for seen in epochs:
            seen += [_shade(images) for images, _ in loader]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(48))
    assert epochs[0] != epochs[1]  # another order


def test_a_stream_on_several_ranks_needs_its_number_of_batches(shards):
    data = ImageNetDataModule(str(shards), batch_size=4, resolution=32, streaming=True, num_workers=0)
    data.trainer = SimpleNamespace(global_rank=0, world_size=2, limit_train_batches=1.0)
    with pytest.raises(ValueError, match="on 2 ranks.* limit_train_batches"):
        data.setup("fit")
    data.trainer.limit_train_batches = 3
    data.setup("fit")


def _shade(images):
    return round((float(images[0, 0].mean()) * 0.229 + 0.485) * 255)


def test_a_tree_of_images(tree):
    data = ImageNetDataModule(str(tree), batch_size=5, resolution=32, num_workers=0)
    data.setup("fit")
    assert data.label_names == ("class0", "class1", "class2", "class3")
    assert len(data.splits["train"]) == 12
    images, labels = next(iter(data.val_dataloader()))
    assert images.shape == (5, 3, 32, 32)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    (tree / "train" / "class1" / "1.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"image 4, .*1\.png: broken image"):
        data.splits["train"][4]


def test_a_broken_image_of_a_stream_or_table_is_named(tmp_path):
    feature = datasets.Image()
    encoded = [feature.encode_example(pixel(i)) for i in range(4)]
    encoded[2] = {"bytes": encoded[2]["bytes"][:70], "path": None}
    features = datasets.Features({"image": feature, "label": datasets.ClassLabel(num_classes=CLASSES)})
    table = datasets.Dataset.from_dict({"image": encoded, "label": [0, 1, 2, 3]}, features=features)
    for split in ("train", "validation"):
        table.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    for streaming, message in ((False, "split 'validation', row 2: broken"), (True, "image 2 of this worker: broken")):
        data = ImageNetDataModule(str(tmp_path), resolution=32, num_workers=0, streaming=streaming)
        data.setup("validate")
        with pytest.raises(ValueError, match=message):
            list(data.val_dataloader())


def test_mixup_gives_probabilities_in_training_alone(shards):
    data = ImageNetDataModule(str(shards), batch_size=8, resolution=32, num_workers=0, mixup=0.2)
    data.trainer = SimpleNamespace(training=True, world_size=1)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    _, labels = data.on_after_batch_transfer(batch, 0)
    assert labels.shape == (8, CLASSES)
    torch.testing.assert_close(labels.sum(1), torch.ones(8))
    data.trainer.training = False
    assert data.on_after_batch_transfer(batch, 0) is batch


def test_what_is_refused(tree):
    with pytest.raises(ValueError, match="streaming=True"):
        ImageNetDataModule(str(tree), streaming=True)
    with pytest.raises(ValueError, match="resolution=8"):
        ImageNetDataModule(str(tree), resolution=8)
    with pytest.raises(ValueError, match="mixup=-1"):
        ImageNetDataModule(str(tree), mixup=-1.0)
    (tree / "val").rename(tree / "valid")
    data = ImageNetDataModule(str(tree))
    with pytest.raises(FileNotFoundError, match="no folder val or validation"):
        data.setup("validate")
