"""A model and data of a user's own, as small as can be: what the grid's tests train."""

from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

SAMPLES, BATCH = 64, 16


class Line(L.LightningModule):
    """A regression with noise from dropout; it dies once at a given step where a file tells it to."""

    def __init__(self, lr: float = 0.1, die_at: int = -1, told_by: str = "") -> None:
        super().__init__()
        self.lr, self.die_at, self.told_by = lr, die_at, told_by
        self.layers = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(3, 1))
        self.seen: list[tuple[int, float]] = []

    def training_step(self, batch, batch_idx):
        if self.global_step == self.die_at and Path(self.told_by).is_file():
            Path(self.told_by).unlink()
            raise RuntimeError("told to die")
        self.seen.append((self.global_step, float(batch[0].sum())))
        loss = self._loss(batch)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self._loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test/loss", self._loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def _loss(self, batch):
        return torch.nn.functional.mse_loss(self.layers(batch[0]), batch[1])


class Points(L.LightningDataModule):
    """Points about a plane."""

    def __init__(self, num_workers: int = 0) -> None:
        super().__init__()
        self.num_workers = num_workers
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(SAMPLES, 3, generator=generator)
        noise = 0.1 * torch.randn(SAMPLES, 1, generator=generator)
        self.points = TensorDataset(inputs, inputs.sum(1, keepdim=True) + noise)

    def train_dataloader(self):
        return DataLoader(self.points, batch_size=BATCH, shuffle=True, num_workers=self.num_workers)

    def val_dataloader(self):
        return DataLoader(self.points, batch_size=SAMPLES)

    def test_dataloader(self):
        return self.val_dataloader()
