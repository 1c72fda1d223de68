"""The clock of a run whose rates live on a device: steps are counted there, so that a replayed graph counts them."""

from __future__ import annotations

import torch

from metalr.core.backend import TORCH
from metalr.core.update_rule import Clock, clock_at


class DeviceClock:
    """Counts steps on a device, like the optimizers of torch that are made with `capturable=True`.

    Args:
        device: where decisions are taken.
        total_steps: horizon T in steps; None in the anytime mode.

    Attributes:
        step: t, decisions taken so far, float64 where the device has it, so that 1e15 steps are exact. Shape (1,).
    """

    def __init__(self, device: torch.device, total_steps: int | None) -> None:
        kind = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no double precision
        self.step = torch.zeros(1, dtype=kind, device=device)
        self._horizon = None if total_steps is None else torch.full_like(self.step, total_steps)

    def set_step(self, step: int) -> None:
        """Sets t in place, without waiting for the device."""
        self.step.fill_(step)

    def set_horizon(self, total_steps: int | None) -> None:
        """Moves T in place, without waiting for the device; a run without a horizon has none to move."""
        if self._horizon is not None and total_steps is not None:
            self._horizon.fill_(total_steps)

    def now(self) -> Clock:
        """Computes the clock of step t, each number of shape (1,), in single precision."""
        return Clock(*(part.float() for part in clock_at(TORCH, self.step, self._horizon)))  # type: ignore[attr-defined]
