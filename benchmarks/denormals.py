"""Counting denormal numbers, which a network that diverges is full of, as zero: arithmetic with them is slow."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flush_denormals() -> None:
    """Counts denormals as zero in this process from here on."""
    torch.set_flush_denormal(True)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Counts denormals as zero within a block, and leaves the process as it found it."""
    before = bool(torch.tensor(1e-40) * 1.0 == 0.0)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
