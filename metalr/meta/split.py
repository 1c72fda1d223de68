"""Split: the samples of several instances of a task."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Holds the samples that P instances train on, or are validated on.

    Attributes:
        inputs: (P, N, ...).
        targets: (P, N, ...).

    Example:
        >>> import torch
        >>> from metalr.meta import Split
        >>> split = Split(torch.zeros(3, 100, 8), torch.zeros(3, 100))  # three instances of 100 samples
        >>> inputs, targets = split.batch(torch.arange(16).expand(3, 16))
        >>> inputs.shape
        torch.Size([3, 16, 8])
    """

    inputs: Tensor
    targets: Tensor

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Takes each instance's samples with indices (P, B): (P, B, ...)."""
        inputs, targets = self.flat()
        rows = self.rows(indices)
        return take(inputs, rows), take(targets, rows)

    def flat(self) -> tuple[Tensor, Tensor]:
        """Lays the samples of all instances one after another, (P * N, ...); it copies them where they are a slice."""
        return self.inputs.flatten(0, 1), self.targets.flatten(0, 1)

    def rows(self, indices: Tensor) -> Tensor:
        """Numbers the samples with indices (P, B) among those of all instances."""
        first = torch.arange(len(indices), device=indices.device) * self.inputs.shape[1]
        return indices + first[:, None]

    def all(self, copies: int = 1) -> tuple[Tensor, Tensor]:
        """Takes all samples of each instance, for `copies` runs an instance: (copies * P, N, ...)."""
        inputs = self.inputs.repeat(copies, *[1] * (self.inputs.dim() - 1))
        return inputs, self.targets.repeat(copies, *[1] * (self.targets.dim() - 1))

    def halves(self) -> tuple[Split, Split]:
        """Divides the samples of each instance into two halves, which share none.

        Raises:
            ValueError: for fewer than two samples.
        """
        half = self.inputs.shape[1] // 2
        if not half:
            raise ValueError(f"{self.inputs.shape[1]} samples have no two halves: give valid_size=2 or more")
        sizes = [half, self.inputs.shape[1] - half]
        first, second = map(Split, torch.split(self.inputs, sizes, 1), torch.split(self.targets, sizes, 1))
        return first, second

    def select(self, instances: slice | Tensor) -> Split:
        """Selects some of the instances, by a slice or by their numbers."""
        return Split(self.inputs[instances], self.targets[instances])

    def to(self, device: torch.device) -> Split:
        """Moves the samples to a device."""
        return Split(self.inputs.to(device), self.targets.to(device))


def take(samples: Tensor, rows: Tensor, copies: int = 1) -> Tensor:
    """Takes rows (P, B) of samples (P * N, ...), for `copies` runs an instance: (copies * P, B, ...)."""
    batch = samples.index_select(0, rows.flatten()).view(*rows.shape, *samples.shape[1:])
    return batch.repeat(copies, *[1] * (batch.dim() - 1)) if copies > 1 else batch
