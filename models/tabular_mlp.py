"""TabularMLP: a perceptron on tables with numbers and categories."""

from __future__ import annotations

from collections.abc import Sequence
from operator import gt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.binary import BinaryClassifier, TabularBatch


class TabularMLP(BinaryClassifier):
    """Trains a perceptron with ReLU on standardised numbers and embedded categories, with binary cross entropy.

    A missing number is replaced by its mean, 0; a missing category has an embedding of its own.

    Args:
        numbers: number of numeric columns.
        category_sizes: number of codes of each categorical column, that of missing values included.
        embedding: width of each category's embedding.
        hidden: widths of the hidden layers.
        dropout: probability after each hidden layer, in [0, 1).

    Raises:
        ValueError: for a dropout out of range; on fit, for data with more codes than embeddings.
    """

    def __init__(
        self,
        numbers: int,
        category_sizes: Sequence[int],
        embedding: int = 8,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout={dropout}: must be in [0, 1)")
        self.category_sizes = list(category_sizes)
        self.embeddings = nn.ModuleList(nn.Embedding(size, embedding) for size in category_sizes)
        inputs = numbers + embedding * len(self.category_sizes)
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
            inputs = width
        self.network = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def setup(self, stage: str) -> None:
        """Checks that the data has no more codes than there are embeddings, before a batch fails."""
        datamodule = getattr(self.trainer, "datamodule", None)
        sizes = getattr(datamodule, "category_sizes", self.category_sizes)
        if len(sizes) != len(self.category_sizes) or any(map(gt, sizes, self.category_sizes)):
            raise ValueError(
                f"category_sizes={self.category_sizes}, and the data has {list(sizes)}: give the model at least these"
            )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Computes margins (B,) from numbers (B, N) and codes (B, C)."""
        embedded = [layer(codes) for layer, codes in zip(self.embeddings, categories.unbind(1), strict=True)]
        inputs = torch.cat([numbers.nan_to_num(nan=0.0), *embedded], dim=1)
        margins: Tensor = self.network(inputs).squeeze(1)
        return margins

    def training_step(self, batch: TabularBatch, batch_idx: int) -> Tensor:
        """Returns the cross entropy of a batch, nats."""
        numbers, categories, labels = batch
        loss = F.binary_cross_entropy_with_logits(self(numbers, categories), labels)
        self.log("train/loss", loss, prog_bar=True)
        return loss
