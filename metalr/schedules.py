"""The schedules that people set by hand, over the whole of a run: what a learned one is compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(fraction: float) -> float:
    """1."""
    return 1.0


def step(fraction: float) -> float:
    """A tenth from half of the run on, a hundredth from three quarters on (He et al. 2016, on CIFAR-10)."""
    return 1.0 if fraction < 0.5 else 0.1 if fraction < 0.75 else 0.01


def cosine(fraction: float) -> float:
    """(1 + cos(pi t/T)) / 2 (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))


def linear(fraction: float) -> float:
    """1 - t/T."""
    return max(0.0, 1.0 - fraction)


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "linear": linear,
}
"""Factor of the initial rate at the fraction t/T of the run, by name."""


class HorizonLR(LambdaLR):
    """A schedule over a whole run, stepped once an optimizer step.

    Args:
        optimizer: whose initial rates it scales.
        shape: one of `SHAPES`.
        total_steps: horizon T, optimizer steps. `MetaLRCLI` takes it from the Trainer where it is None.
        last_epoch: as for torch's schedulers.

    Raises:
        ValueError: for an unknown shape, a horizon below 1, or none when it is needed.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        shape: str = "cosine",
        total_steps: int | None = None,
        last_epoch: int = -1,
    ) -> None:
        if shape not in SHAPES:
            raise ValueError(f"shape={shape!r}: choose one of {', '.join(SHAPES)}")
        if total_steps is not None and total_steps < 1:
            raise ValueError(f"total_steps={total_steps}: give the number of optimizer steps, 1 or more")
        self.shape = shape
        self.total_steps = total_steps
        super().__init__(optimizer, self._factor, last_epoch)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the step; a horizon that this object was given stays, as a resumed run may be longer."""
        own = self.total_steps
        super().load_state_dict(state_dict)
        self.total_steps = own if own is not None else self.total_steps

    def _factor(self, step: int) -> float:
        if step == 0:
            return 1.0
        if self.total_steps is None:
            raise ValueError(f"HorizonLR(shape={self.shape!r}) needs total_steps: give the run's optimizer steps")
        return SHAPES[self.shape](step / self.total_steps)
