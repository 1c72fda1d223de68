"""A model and data of a user's own, as small as can be: what the grid's tests train."""

from pathlib import Path

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

from metalr.compare import Schedule

SAMPLES, BATCH = 64, 16

CONFIG = {
    "model": {"class_path": "tests.compare.problem.Line"},
    "data": {"class_path": "tests.compare.problem.Points"},
    "trainer": {
        "accelerator": "cpu",
        "max_epochs": 3,
        "log_every_n_steps": 1,
        "enable_model_summary": False,
        "callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}],
    },
}
"""A config of `fit` that trains it."""

ROOT = Path(__file__).parents[2]
SCRIPT = "from metalr.cli import MetaLRCLI\n\nif __name__ == '__main__':\n    MetaLRCLI()\n"
SGD = {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 1.0}}}
STEP = {"lr_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 6}}}
HALVED = Schedule("halved", SGD | STEP)
LEARNED = Schedule("learned", SGD | {"trainer": {"callbacks+": [{"class_path": "metalr.MetaLRCallback"}]}})


class Line(L.LightningModule):
    """A regression with noise from dropout; it dies once, at a given step, while a file is there."""

    def __init__(self, lr: float = 0.1, die_at: int = -1, die_flag: str = "") -> None:
        super().__init__()
        self.lr, self.die_at, self.die_flag = lr, die_at, die_flag
        self.layers = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(3, 1))
        self.seen: list[tuple[int, float]] = []

    def training_step(self, batch, batch_idx):
        if self.global_step == self.die_at and Path(self.die_flag).is_file():
            Path(self.die_flag).unlink()
            raise RuntimeError("asked to die")
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
