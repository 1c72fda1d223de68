"""RecurrentTasks: GRUs and LSTMs on synthetic sequences."""

from __future__ import annotations

import torch

from metalr.meta.families.pool import PooledFamily, corrupt, split
from metalr.meta.families.tokens import sentences, sequences
from metalr.meta.net import Net
from metalr.meta.recurrent import Recurrent
from metalr.meta.split import Split


class RecurrentTasks(PooledFamily):
    """Samples small GRUs and LSTMs: some predict the sequences of `TransformerTasks`, some classify sentences."""

    pool = (
        (Recurrent(), 16),
        (Recurrent(vocabulary=32, cell="lstm"), 32),
        (Recurrent(vocabulary=100, width=16, classes=3), 64),
        (Recurrent(vocabulary=200, length=10, width=16, cell="lstm", classes=2), 32),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples sequences, or sentences with their classes."""
        if not isinstance(net, Recurrent):
            raise TypeError(f"net={net}: recurrent tasks need a Recurrent")
        samples = train_size + self.valid_size
        if not net.classes:
            tokens = sequences(net, instances, samples, generator)
            return split(tokens, torch.zeros(instances, samples), train_size)
        train, valid = split(*sentences(net, instances, samples, generator), train_size)
        return corrupt(train, generator, net.classes), valid
