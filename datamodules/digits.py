"""The 1,797 images of handwritten digits, 8x8 pixels, that scikit-learn bundles: real data without a download."""

from __future__ import annotations

import lightning as L
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from datamodules.loaders import make_loader

CLASSES = 10


def load_splits(seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Loads stratified splits "train" (1,077), "val" (360) and "test" (360).

    Returns:
        By name, images (N, 1, 8, 8), standardised by the training split's mean and deviation, and labels (N,), int64.
    """
    images, labels = load_digits(return_X_y=True)
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=360, random_state=seed, stratify=labels
    )
    train, val, train_labels, val_labels = train_test_split(
        rest, rest_labels, test_size=360, random_state=seed, stratify=rest_labels
    )
    mean, std = train.mean(), train.std()
    parts = {"train": (train, train_labels), "val": (val, val_labels), "test": (test, test_labels)}
    return {
        name: (torch.tensor((x - mean) / std, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(y))
        for name, (x, y) in parts.items()
    }


class DigitsDataModule(L.LightningDataModule):
    """Loads scikit-learn's digits as batches of (images (B, 1, 8, 8), labels (B,)).

    Args:
        batch_size: of training; validation, test and prediction take their whole split at once.
        seed: of the splits.
        num_workers: of the training loader; 0 is fastest for data this small.

    Raises:
        ValueError: for a batch size below 1.
    """

    def __init__(self, batch_size: int = 32, seed: int = 0, num_workers: int = 0) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers

    def setup(self, stage: str) -> None:
        """Loads the three splits, in a few milliseconds."""
        self.splits = {name: TensorDataset(*tensors) for name, tensors in load_splits(self.seed).items()}

    def train_dataloader(self) -> DataLoader:
        """Shuffled, without the last incomplete batch."""
        workers = {"num_workers": self.num_workers, "persistent_workers": self.num_workers > 0}
        return make_loader(self.splits["train"], self.batch_size, self.trainer, training=True, **workers)

    def val_dataloader(self) -> DataLoader:
        """Returns the validation split as one batch."""
        return self._whole("val")

    def test_dataloader(self) -> DataLoader:
        """Returns the test split as one batch."""
        return self._whole("test")

    def predict_dataloader(self) -> DataLoader:
        """Returns the test split as one batch."""
        return self._whole("test")

    def _whole(self, split: str) -> DataLoader:
        return make_loader(self.splits[split], len(self.splits[split]), self.trainer)
