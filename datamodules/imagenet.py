"""ImageNet-1k (Russakovsky et al. 2015) from the hub, from folders of images on disk, or streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from datamodules import hub
from datamodules.images import ImageColumns, ImageRows, check_labels, decode
from datamodules.loaders import check_batch_size, loader_options, make_loader

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of red, green and blue, in [0, 1], that torchvision's pretrained weights expect."""

FOLDERS = {"train": ("train",), "validation": ("val", "validation")}
"""Names that a split's folder may have on disk."""

SHUFFLE_BUFFER = 4096
"""Images in the shuffle buffer of a streamed training split, whose shards are shuffled, too."""


class ImageTree(Dataset):
    """Reads (transformed image, label) from a folder with one subfolder of images a class."""

    def __init__(self, root: Path, transform: v2.Transform) -> None:
        self.tree = ImageFolder(str(root))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.tree)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.tree.samples[index]
        return self.transform(decode(lambda: Image.open(file), f"image {index}, {file}")), label


class ImageStream(IterableDataset):
    """Streams (transformed image, label) of a split; ranks and workers read different shards.

    `datasets` splits the shards over the workers, and over the ranks if the number of shards is a multiple of theirs;
    otherwise each rank of n reads all shards and keeps every nth image.
    """

    def __init__(
        self, rows: Any, shard: Callable[[Any, int], Any], columns: ImageColumns, transform: v2.Transform, split: str
    ) -> None:
        from datasets import Image as ImageFeature

        # undecoded, so that a message can name a broken image
        self.rows = rows.cast_column(columns.image, ImageFeature(decode=False))
        self.shard = shard
        self.feature = ImageFeature()
        self.columns = columns
        self.transform = transform
        self.split = split
        self.epoch = 0

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        # A new order each epoch. Persistent workers count epochs alike; the rows' own set_epoch shares its counter
        # between workers, and two that increment it at once would give one rank another order than the rest.
        rows = self.shard(self.rows, self.epoch)
        self.epoch += 1
        for count, row in enumerate(rows):
            where = f"split {self.split!r} streamed, image {count} of this worker"
            label = row[self.columns.label]
            check_labels(torch.tensor([label]).numpy(), len(self.columns.names), where)
            image = decode(lambda row=row: self.feature.decode_example(row[self.columns.image]), where)  # type: ignore[misc]
            yield self.transform(image), label


class ImageNetDataModule(L.LightningDataModule):
    """Loads ImageNet as batches of (images (B, 3, resolution, resolution), normalised, and labels (B,)).

    Training images are randomly cropped, resized and flipped; with mixup, labels are probabilities (B, classes).
    Evaluation images are resized to 8/7 of the resolution at their short side, and cropped at the centre. The official
    test split has no labels, so `test` and `predict` use the validation split.

    Args:
        path: hub id (gated: accept its terms on its page, then `hf auth login`); a folder in the hub's layout; or
            a folder of images, `train/<class>/*` and `val/<class>/*`.
        name: configuration, where there are several.
        batch_size: of every split.
        resolution: side of the training crop, pixels, 32 or more; usually 176 to 224.
        eval_resolution: side of the evaluation crop, pixels, 32 or more; None for that of training.
        rand_augment: whether to apply torchvision's RandAugment (2 operations, magnitude 9) after the flip.
        mixup: alpha of the Beta distribution of mixup (Zhang et al. 2018); 0 for none.
        streaming: whether to read while training rather than download 150 GB first. The length of a stream is unknown:
            give the Trainer `max_steps`, and on several ranks `limit_train_batches`.
        seed: of a streamed split's shuffle.
        num_workers: of each loader; None for a default by the number of cores.

    Raises:
        ValueError: for an argument out of range, or streaming from a folder of images.
        FileNotFoundError: for a folder that is missing, or without a split.
    """

    def __init__(
        self,
        path: str = "ILSVRC/imagenet-1k",
        name: str | None = None,
        batch_size: int = 128,
        resolution: int = 224,
        eval_resolution: int | None = None,
        rand_augment: bool = False,
        mixup: float = 0.0,
        streaming: bool = False,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        if min(resolution, eval_resolution or resolution) < 32:
            raise ValueError(f"resolution={resolution}, eval_resolution={eval_resolution}: give 32 pixels or more")
        if mixup < 0.0:
            raise ValueError(f"mixup={mixup}: give alpha above 0 (0.2 is usual), or 0 for none")
        folder = hub.local_folder(path)
        self.tree = folder if folder is not None and _is_image_tree(folder) else None
        if self.tree is not None and streaming:
            raise ValueError(f"streaming=True, and path={path!r} is a folder of images: leave streaming out")
        self.path = path
        self.name = name
        self.batch_size = check_batch_size(batch_size)
        self.streaming = streaming
        self.seed = seed
        self.mixup_alpha = mixup
        self.options = loader_options(num_workers)
        self.transforms = {
            "train": train_transform(resolution, rand_augment),
            "validation": eval_transform(eval_resolution or resolution),
        }
        self.label_names: tuple[str, ...] = ()
        self.splits: dict[str, Dataset] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes; known after `setup`."""
        return len(self.label_names)

    def prepare_data(self) -> None:
        """Downloads the data once a node, unless streaming."""
        if self.tree is None and not self.streaming:
            hub.load(self.path, self.name, "train")

    def setup(self, stage: str) -> None:
        """Opens the splits of a stage; images are decoded as they are read.

        Raises:
            ValueError: for a stream on several ranks without a number of batches an epoch: the ranks would have
                different numbers, and one would wait for another without end.
        """
        limit = getattr(self.trainer, "limit_train_batches", None)
        if stage == "fit" and self.streaming and isinstance(limit, float) and self.trainer.world_size > 1:
            raise ValueError(
                f"streaming=True on {self.trainer.world_size} ranks, and the length of a stream is unknown: give the "
                "Trainer limit_train_batches, a whole number that no rank's shards fall short of"
            )
        for split in ("train", "validation") if stage == "fit" else ("validation",):
            if split not in self.splits:
                self.splits[split] = self._open(split)
        if self.mixup_alpha:
            self.mix = v2.MixUp(alpha=self.mixup_alpha, num_classes=self.num_classes)

    def train_dataloader(self) -> DataLoader:
        """Shuffled, without the last incomplete batch (unless there is no other)."""
        return make_loader(self.splits["train"], self.batch_size, self.trainer, training=True, **self.options)

    def val_dataloader(self) -> DataLoader:
        """Returns the validation split, in order."""
        return make_loader(self.splits["validation"], self.batch_size, self.trainer, **self.options)

    def test_dataloader(self) -> DataLoader:
        """Returns the validation split: the test split's labels are withheld."""
        return self.val_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Returns the validation split, in order."""
        return self.val_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Applies mixup to training batches, on the device."""
        if self.mixup_alpha and self.trainer is not None and self.trainer.training:
            return self.mix(*batch)
        return batch

    def _open(self, split: str) -> Dataset:
        transform = self.transforms[split]
        if self.tree is not None:
            tree = ImageTree(_subfolder(self.tree, split), transform)
            self._name_classes(tuple(tree.tree.classes), split)
            return tree
        rows = hub.load(self.path, self.name, split, streaming=self.streaming)
        columns = ImageColumns.of(rows.features, self.path)
        self._name_classes(columns.names, split)
        if not self.streaming:
            return ImageRows(rows, columns, transform, split)
        return ImageStream(rows, partial(self._shard, split=split), columns, transform, split)

    def _name_classes(self, names: tuple[str, ...], split: str) -> None:
        if self.label_names and names != self.label_names:
            different = sorted(set(names) ^ set(self.label_names))
            raise ValueError(f"split {split!r} of {self.path} has other classes than train: {different[:5]}")
        self.label_names = names

    def _shard(self, rows: Any, epoch: int, split: str) -> Any:
        """Returns this rank's part of an epoch; workers split it further when they iterate."""
        from datasets.distributed import split_dataset_by_node

        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if split == "train":
            rows = rows.shuffle(seed=self.seed + epoch, buffer_size=SHUFFLE_BUFFER)
        return split_dataset_by_node(rows, rank=rank, world_size=ranks)


def train_transform(resolution: int, rand_augment: bool = False) -> v2.Transform:
    """Makes the training transform: PIL image -> (3, resolution, resolution), augmented and normalised."""
    steps: list[Any] = [v2.RandomResizedCrop(resolution, antialias=True), v2.RandomHorizontalFlip()]
    steps += [v2.RandAugment()] if rand_augment else []
    return v2.Compose([*steps, *_to_tensor()])


def eval_transform(resolution: int) -> v2.Transform:
    """Makes the evaluation transform: PIL image -> (3, resolution, resolution), its centre, normalised."""
    short = round(resolution * 8 / 7)  # 256 for 224, as in He et al. 2016
    return v2.Compose([v2.Resize(short, antialias=True), v2.CenterCrop(resolution), *_to_tensor()])


def _to_tensor() -> list[v2.Transform]:
    return [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]


def _is_image_tree(folder: Path) -> bool:
    train = folder / "train"
    return train.is_dir() and any(child.is_dir() for child in train.iterdir())


def _subfolder(root: Path, split: str) -> Path:
    for name in FOLDERS[split]:
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"path={str(root)!r} has no folder {' or '.join(FOLDERS[split])}: give it one")
