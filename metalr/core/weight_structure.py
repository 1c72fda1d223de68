"""Measures how far weights lie from random ones: it tells a pretrained network from a new one before its first step.

Initialisers sample entries independently, so rows (and columns) have equal energy up to chance. Training gives some
rows and columns more than others.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

LARGEST = 256
"""Rows and columns that are looked at, evenly spaced, of a larger matrix."""

LEAST = 8
"""Rows or columns without which their energies are not compared."""

LOWEST = -1.0
"""Lowest structure: that of orthogonal matrices, whose rows are more alike than chance makes them."""


def matrix_structure(matrices: Tensor) -> Tensor:
    """Computes the log of how much the energies of rows differ over what chance makes of it, likewise of columns.

    For independent entries of any distribution about zero, the mean square of n of them has the variance (k - 1) / n
    of its own square, k = E[w^4] / E[w^2]^2. The result is the mean over rows and columns of log(measured variance /
    that), at least `LOWEST`: 0 for any random matrix, give or take sqrt(2 / rows) and sqrt(2 / columns); above 0 for
    a trained one (0.9 on average in an ImageNet-pretrained MobileNetV2, 3.1 in a pretrained MiniLM).

    Args:
        matrices: of R runs, (R, m, n), in float32.

    Returns:
        Nats, (R,); 0 where all entries are the same or the matrix is too small.

    Example:
        >>> import torch
        >>> random = torch.randn(1, 200, 100, generator=torch.Generator().manual_seed(0))
        >>> abs(float(matrix_structure(random))) < 0.2
        True
        >>> trained = random * torch.linspace(0.2, 2.0, 200)[:, None]
        >>> round(float(matrix_structure(trained)), 1)
        1.3
    """
    squares = matrices.square()
    energy = squares.mean((1, 2))
    excess = squares.square().mean((1, 2)) / energy.square() - 1.0
    logs = []
    for across in (2, 1):
        of_each = squares.mean(across)
        if of_each.shape[1] >= LEAST:
            variance = of_each.var(1) / energy.square()
            logs.append(torch.log(variance * matrices.shape[across] / excess).clamp(min=LOWEST))
    if not logs:
        return torch.zeros_like(energy)
    structure = torch.stack(logs).mean(0)
    return torch.where(energy.isfinite() & (excess > 1e-6), structure.nan_to_num(0.0, 0.0, 0.0), 0.0)


def structure_sums(matrices: Iterable[Tensor]) -> Tensor:
    """Sums the structure of the matrices of R runs, each weighted by its number of elements, and these numbers.

    Args:
        matrices: each a parameter of R runs, (R, m, ...); those of less than three dimensions are left out.

    Returns:
        (2, R): the quotient of the two is the mean over all elements that lie in matrices.
    """
    total: Tensor | None = None
    for stacked in matrices:
        if stacked.ndim < 3 or stacked.numel() == 0:
            continue
        flat = stacked.flatten(2)
        rows, columns = (-(-size // LARGEST) for size in flat.shape[1:])
        count = float(flat.shape[1] * flat.shape[2])
        structure = matrix_structure(flat[:, ::rows, ::columns].float())
        part = count * torch.stack((structure, torch.ones_like(structure)))
        total = part if total is None else total + part
    return torch.zeros(2, 1) if total is None else total
