"""Predicts whether a GradScaler will skip a step, before the step is taken."""

from __future__ import annotations

from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer


def skips(scaler: GradScaler, optimizer: Optimizer) -> bool:
    """Tests whether the scaler will skip this step, for a gradient that is not finite.

    It needs unscaled gradients. `unscale_` takes the pass over them that the scaler would take anyway to look for
    overflows. A fused optimizer's are left scaled by most loops, for its step to unscale; the step then finds nothing
    left to unscale.

    Args:
        scaler: a `torch.amp.GradScaler` after the backward pass, whose `unscale_` has been called or not.
        optimizer: whose step it is.
    """
    if not scaler._found_inf_per_device(optimizer):
        scaler.unscale_(optimizer)
    return any(bool(found) for found in scaler._found_inf_per_device(optimizer).values())
