"""Convolutional networks on synthetic images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from metalr.meta.architectures import ConvNet
from metalr.meta.families.pool import CLASSES, PooledFamily, corrupt, log_uniform, split, uniform
from metalr.meta.net import Net
from metalr.meta.split import Split


class ConvNetTasks(PooledFamily):
    """Samples convnets on synthetic images of 8x8 or 12x12 pixels.

    Images are smooth templates, two a class, shifted, scaled in contrast, with noise. Some tasks are learned in a
    hundred steps; of others, as of photographs, only a part can be learned.
    """

    pool: Sequence[tuple[Net, int]] = (
        (ConvNet(widths=(8, 16)), 32),
        (ConvNet(widths=(4, 8)), 64),
        (ConvNet(widths=(8, 16), pool="mean"), 16),
        (ConvNet(widths=(8, 8), norm="batch"), 32),
        (ConvNet(widths=(12, 16), norm="batch"), 8),
        (ConvNet(side=12, widths=(6, 12), norm="batch", pool="mean"), 16),
    )

    def data(self, net: Net, instances: int, train_size: int, generator: torch.Generator) -> tuple[Split, Split]:
        """Samples templates and makes images from them."""
        if not isinstance(net, ConvNet):
            raise TypeError(f"net={net}: image tasks need a ConvNet")
        samples, side = train_size + self.valid_size, net.side
        coarse = torch.randn(instances, 2 * CLASSES, 5, 5, generator=generator)
        templates = F.interpolate(coarse, size=(side + 2, side + 2), mode="bicubic", align_corners=True)
        which = torch.randint(2 * CLASSES, (instances, samples), generator=generator)
        corner = torch.randint(3, (2, instances, samples, 1, 1), generator=generator)
        rows = corner[0] + torch.arange(side)[:, None]
        columns = corner[1] + torch.arange(side)
        images = templates[torch.arange(instances)[:, None, None, None], which[..., None, None], rows, columns]
        images = images * uniform((instances, samples, 1, 1), 0.5, 1.5, generator)
        noise = log_uniform((instances, 1, 1, 1), 0.1, 4.0, generator)
        images = (images + noise * torch.randn(images.shape, generator=generator)).unsqueeze(-1)
        train, valid = split(images, which % CLASSES, train_size)
        return corrupt(train, generator), valid


class AugmentedImageTasks(ConvNetTasks):
    """Samples convnets on few images, mirrored and shifted at random each time: many epochs, and none is the same."""

    pool = (
        (ConvNet(widths=(8, 16), augmented=True), 32),
        (ConvNet(widths=(8, 16), pool="mean", augmented=True), 16),
        (ConvNet(widths=(8, 8), norm="batch", augmented=True), 32),
        (ConvNet(side=12, widths=(6, 12), norm="batch", pool="mean", augmented=True), 16),
    )
