"""Averages a loss over the ranks."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(loss: Tensor) -> Tensor:
    """Averages a scalar over the default process group, so that all ranks decide alike; returns it where there is none.

    A mean that was taken before stays what it is.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return loss
    total = loss.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
