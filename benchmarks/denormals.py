"""Counting denormal numbers, which a network that diverges is full of, as zero: arithmetic with them is slow."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flush_denormals() -> None:
    """Counts denormals as zero in this process from here on."""
    torch.set_flush_denormal(True)


def flushes_denormals() -> bool:
    """Says whether this process counts denormals as zero."""
    return float(torch.tensor(1e-40) * 1.0) == 0.0


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Counts denormals as zero within a block, and leaves the process as it found it."""
    before = flushes_denormals()
    flush_denormals()
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
