"""CIFAR-10: 60,000 colour images of 32x32 pixels in 10 classes (Krizhevsky 2009)."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from datamodules import hub
from datamodules.images import ImageColumns, check_labels, decode
from datamodules.loaders import as_fetched, check_batch_size, loader_options, make_loader

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Mean and standard deviation of the training images' red, green and blue, in [0, 1]."""


class DecodedImages(Dataset):
    """Holds decoded images in memory and returns them by the batch, augmented one by one and normalised together.

    Args:
        images: (N, 3, H, W), uint8.
        labels: (N,), int64.
        augment: transform of one image; None for none.
    """

    def __init__(self, images: Tensor, labels: Tensor, augment: v2.Transform | None = None) -> None:
        self.images = images
        self.labels = labels
        self.augment = augment
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD, inplace=True)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Returns a batch, images (B, 3, H, W) and labels (B,); the loader calls it in place of `__getitem__`."""
        images = self.images[indices]
        if self.augment is not None:
            images = torch.stack([self.augment(image) for image in images])
        return self.normalise(images), self.labels[indices]


class CIFAR10DataModule(L.LightningDataModule):
    """Loads CIFAR-10 as batches of (images (B, 3, 32, 32), normalised, and labels (B,)).

    Training images are padded by 4 pixels, cropped at random and flipped (He et al. 2016). Validation is a stratified
    part of the training split.

    Args:
        path: hub id of any copy with an image and a class column, such as "hf-internal-testing/cifar10", or a folder
            in the hub's layout.
        name: configuration, where there are several.
        batch_size: of every split.
        val_fraction: part of the training split to validate on, in (0, 1).
        augment: whether to crop and flip training images.
        seed: of the validation split.
        num_workers: of each loader; None for a default by the number of cores.

    Raises:
        ValueError: for an argument out of range; in `setup`, for images of another size or labels out of range.
        FileNotFoundError: for a folder that is missing.
    """

    def __init__(
        self,
        path: str = "uoft-cs/cifar10",
        name: str | None = None,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        augment: bool = True,
        seed: int = 0,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < val_fraction < 1.0:
            raise ValueError(f"val_fraction={val_fraction}: give a part of the training split, between 0 and 1")
        hub.local_folder(path)
        self.path = path
        self.name = name
        self.batch_size = check_batch_size(batch_size)
        self.val_fraction = val_fraction
        self.augment = augment
        self.seed = seed
        self.options = loader_options(num_workers)
        self.label_names: tuple[str, ...] = ()
        self.splits: dict[str, DecodedImages] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes; known after `setup`."""
        return len(self.label_names)

    def prepare_data(self) -> None:
        """Downloads the data once a node."""
        hub.load(self.path, self.name, "train")

    def setup(self, stage: str) -> None:
        """Decodes the splits of a stage into memory; a second or so for 10,000 images, 3 kB each."""
        if stage in ("fit", "validate") and "train" not in self.splits:
            images, labels = self._decode("train")
            train, val = train_test_split(
                np.arange(len(labels)), test_size=self.val_fraction, random_state=self.seed, stratify=labels
            )
            crop = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]) if self.augment else None
            self.splits["train"] = DecodedImages(images[train], labels[train], crop)
            self.splits["val"] = DecodedImages(images[val], labels[val])
        if stage in ("test", "predict") and "test" not in self.splits:
            self.splits["test"] = DecodedImages(*self._decode("test"))

    def train_dataloader(self) -> DataLoader:
        """Shuffled, without the last incomplete batch (unless there is no other)."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader:
        """Returns the validation part of the training split, in order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the official test split, in order."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader:
        """The official test split, in order."""
        return self._loader("test")

    def _decode(self, split: str) -> tuple[Tensor, Tensor]:
        rows = hub.load(self.path, self.name, split)
        columns = ImageColumns.of(rows.features, self.path)
        self.label_names = columns.names
        labels = np.asarray(rows.with_format("numpy")[columns.label][:])
        check_labels(labels, len(columns.names), f"split {split!r}")
        images = np.empty((len(rows), 3, 32, 32), dtype=np.uint8)
        for index in range(len(rows)):
            where = f"split {split!r}, row {index}"
            image = decode(lambda index=index: rows[index][columns.image], where)  # type: ignore[misc]
            if image.size != (32, 32):
                raise ValueError(f"{where}: image of {image.size} pixels; CIFAR10DataModule takes 32x32")
            images[index] = np.asarray(image).transpose(2, 0, 1)
        return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))

    def _loader(self, split: str, training: bool = False) -> DataLoader:
        rows = self.splits[split]
        return make_loader(rows, self.batch_size, self.trainer, training, collate_fn=as_fetched, **self.options)
