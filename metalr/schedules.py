"""Hand-set schedules over a whole run, which learned ones are compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def constant(fraction: float) -> float:
    """Returns 1."""
    return 1.0


def step(fraction: float) -> float:
    """Returns 1, a tenth from half of the run on, a hundredth from three quarters on (He et al. 2016, on CIFAR-10)."""
    return 1.0 if fraction < 0.5 else 0.1 if fraction < 0.75 else 0.01


def cosine(fraction: float) -> float:
    """Returns (1 + cos(pi t/T)) / 2 (Loshchilov and Hutter 2017, eq. 5, without restarts)."""
    return 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))


def linear(fraction: float) -> float:
    """Returns 1 - t/T."""
    return max(0.0, 1.0 - fraction)


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": constant,
    "step": step,
    "cosine": cosine,
    "linear": linear,
}
"""The schedules by name: the fraction t/T of the run, 0 or more -> multiple of the initial rate, in [0, 1]."""


class HorizonLR(LambdaLR):
    """Scales the initial rates by a schedule over the whole run; call `step` once an optimizer step.

        scheduler = HorizonLR(optimizer, "cosine", total_steps=1000)
        for step in range(1000):
            ...
            optimizer.step()
            scheduler.step()

    Args:
        optimizer: whose groups' initial rates are scaled.
        shape: "constant", "step", "cosine" or "linear".
        total_steps: horizon T, optimizer steps, 1 or more; None lets `MetaLRCLI` set it from the Trainer.
        last_epoch: as for torch's schedulers.

    Raises:
        ValueError: for an unknown shape or a horizon below 1; on the first step, for a horizon that is still None.
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
        """Restores the step; keeps the horizon that this object was given, as a resumed run may be longer."""
        own = self.total_steps
        super().load_state_dict(state_dict)
        self.total_steps = own if own is not None else self.total_steps

    def _factor(self, step: int) -> float:
        if step == 0:
            return 1.0
        if self.total_steps is None:
            raise ValueError(f"HorizonLR(shape={self.shape!r}) needs total_steps: give the run's optimizer steps")
        return SHAPES[self.shape](step / self.total_steps)
