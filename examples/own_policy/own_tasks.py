"""A network and data of your own: here, a small convnet that finds out how a noisy wave was modulated."""

import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class WaveClassifier(L.LightningModule):
    """A LightningModule as you have one: its training_step is the loss of the inner runs."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(1, width, 7, stride=2, padding=3),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(width * 16, 4),
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)  # a hundred times too high


class WaveDataModule(L.LightningDataModule):
    """Waves of 64 samples: sine, square, saw tooth or chirp, at any frequency and phase, in noise."""

    def __init__(self, samples: int = 4096, batch_size: int = 32) -> None:
        super().__init__()
        self.samples, self.batch_size = samples, batch_size

    def setup(self, stage):
        generator = torch.Generator().manual_seed(0)
        self.train, self.valid = (self._waves(count, generator) for count in (self.samples, self.samples // 4))

    def _waves(self, count: int, generator: torch.Generator) -> TensorDataset:
        frequency, phase = torch.rand(2, count, 1, generator=generator)
        angle = (2.0 + 3.0 * frequency) * torch.linspace(0.0, 6.28, 64) + 6.28 * phase
        chirp = torch.sin(angle * torch.linspace(0.5, 1.5, 64))
        saw = torch.remainder(angle, 6.28) / 3.14 - 1.0
        waves = torch.stack((torch.sin(angle), torch.sin(angle).sign(), saw, chirp))
        labels = torch.randint(4, (count,), generator=generator)
        noise = 0.7 * torch.randn(count, 64, generator=generator)
        return TensorDataset((waves[labels, torch.arange(count)] + noise)[:, None], labels)

    def train_dataloader(self):
        return DataLoader(self.train, self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.valid, self.batch_size)
