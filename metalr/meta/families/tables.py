"""Networks with embeddings on tables of categories and numbers."""

from __future__ import annotations

import torch

from metalr.meta.architectures import TabularNet
from metalr.meta.families.pool import PooledFamily, corrupt, log_uniform, split
from metalr.meta.families.tokens import zipf
from metalr.meta.net import Net
from metalr.meta.split import Split


class TabularTasks(PooledFamily):
    """Samples perceptrons on embeddings of long-tailed categories and on numbers, with two or four classes."""

    pool = (
        (TabularNet(), 64),
        (TabularNet(columns=8, cardinality=30, embedding=6, width=24, depth=1, outputs=4), 32),
        (TabularNet(columns=3, cardinality=60, embedding=8, width=32, depth=3), 128),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples labels from a random additive model with products of its terms, so that the best loss is above 0."""
        if not isinstance(net, TabularNet):
            raise TypeError(f"net={net}: tabular tasks need a TabularNet")
        samples = train_size + self.valid_size
        shares = torch.stack([zipf(instances, net.cardinality, generator) for _ in range(net.columns)], dim=1)
        codes = shares.flatten(0, 1).multinomial(samples, replacement=True, generator=generator)
        categories = codes.view(instances, net.columns, samples)
        effects = torch.randn(instances, net.columns, net.cardinality, net.outputs, generator=generator)
        index = categories[..., None].expand(*categories.shape, net.outputs)
        numbers = torch.randn(instances, samples, net.numbers, generator=generator)
        weights = torch.randn(instances, net.numbers, net.outputs, generator=generator) / net.numbers**0.5
        from_numbers = numbers @ weights
        from_categories = effects.gather(2, index).sum(1) / net.columns**0.5
        clarity = log_uniform((instances, 1, 1), 0.5, 4.0, generator)
        scores = clarity * (from_numbers + from_categories + from_numbers * from_categories)
        gumbel = -torch.log(-torch.log(torch.rand(scores.shape, generator=generator).clamp(1e-9, 1 - 1e-7)))
        inputs = torch.cat((categories.transpose(1, 2).float(), numbers), dim=2)
        train, valid = split(inputs, (scores + gumbel).argmax(-1), train_size)
        return corrupt(train, generator, net.outputs), valid
