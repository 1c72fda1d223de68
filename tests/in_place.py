"""A training loop that works in place, as a graph of its step needs it."""

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr import MetaLR


class InPlaceTraining:
    """Trains a classifier on batches that are copied to where the step reads them.

    Args:
        model: the classifier.
        optimizer: of its parameters.
        meta_lr: of the optimizer.
        batch: inputs and labels, as places for all that come.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, meta_lr: MetaLR, batch: tuple[Tensor, Tensor]) -> None:
        self.model, self.optimizer, self.meta_lr = model, optimizer, meta_lr
        self.x, self.y = batch
        self.rates: list[float] = []

    def load(self, batch) -> None:
        self.x.copy_(batch[0])
        self.y.copy_(batch[1])

    def step(self) -> None:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        self.meta_lr.step(loss)
        self.optimizer.step()

    def train(self, data, take=None) -> list[float]:
        for batch in data:
            self.load(batch)
            (take or self.step)()
            self.rates.append(self.meta_lr.last_lr[0])
        return self.rates
