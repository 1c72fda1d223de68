"""Synthetic images of two factors, a shape and a texture, whose looks only many noisy samples show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 8
"""Pixels of a side."""


@dataclass(frozen=True)
class Scenes:
    """Holds P worlds of images, each of which shows one of `shapes` shapes in one of `textures` textures, and noise.

    Attributes:
        shape: what each shape adds, (P, shapes, SIDE + 2, SIDE + 2), cut out at one of nine places.
        texture: what each texture adds, (P, textures, SIDE + 2, SIDE + 2).
        noise: standard deviation of the noise, (P, 1, 1, 1), about that of a shape.
    """

    shape: Tensor
    texture: Tensor
    noise: Tensor

    @classmethod
    def sample(cls, instances: int, shapes: int, textures: int, generator: torch.Generator) -> Scenes:
        """Draws smooth shapes and textures."""
        coarse = torch.randn(instances, shapes + textures, 5, 5, generator=generator)
        smooth = F.interpolate(coarse, size=(SIDE + 2, SIDE + 2), mode="bicubic", align_corners=True)
        noise = torch.empty(instances, 1, 1, 1).uniform_(0.8, 1.6, generator=generator)
        return cls(smooth[:, :shapes], smooth[:, shapes:], noise)

    def __len__(self) -> int:
        """Counts the P worlds."""
        return len(self.shape)

    def select(self, instances: Tensor) -> Scenes:
        """Selects some of the worlds, by number."""
        return Scenes(self.shape[instances], self.texture[instances], self.noise[instances])

    def render(self, shape: Tensor, texture: Tensor, generator: torch.Generator) -> Tensor:
        """Renders images of these shapes and textures, (P, N) each: (P, N, SIDE, SIDE)."""
        corner = torch.randint(3, (2, *shape.shape, 1, 1), generator=generator)
        rows, columns = corner[0] + torch.arange(SIDE)[:, None], corner[1] + torch.arange(SIDE)
        world = torch.arange(len(self))[:, None, None, None]
        image = self.shape[world, shape[..., None, None], rows, columns]
        image = image + self.texture[world, texture[..., None, None], rows, columns]
        return image + self.noise * torch.randn(image.shape, generator=generator)
