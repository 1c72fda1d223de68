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

    With a warm-up, the rate rises linearly over the first W = round(warmup * T) steps (Goyal et al. 2017, section
    2.2), step t at (t + 1) / (W + 1) of it, and the schedule takes the rest of the run: step t is at the fraction
    (t - W) / (T - W).

    Args:
        optimizer: whose groups' initial rates are scaled.
        shape: "constant", "step", "cosine" or "linear".
        total_steps: horizon T, optimizer steps, 1 or more; None lets `MetaLRCLI` set it from the Trainer.
        last_epoch: as for torch's schedulers.
        warmup: share of the run in which the rate rises, in [0, 1).

    Raises:
        ValueError: for an unknown shape, a horizon below 1 or a warm-up out of range; on the first step, for a horizon
            that is still None.

    Example:
        >>> import torch
        >>> from metalr.schedules import HorizonLR
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        >>> scheduler = HorizonLR(optimizer, "linear", total_steps=4)
        >>> for _ in range(4):
        ...     print(f"{scheduler.get_last_lr()[0]:.3f}")
        ...     optimizer.step()
        ...     scheduler.step()
        0.100
        0.075
        0.050
        0.025
    """

    def __init__(
        self,
        optimizer: Optimizer,
        shape: str = "cosine",
        total_steps: int | None = None,
        last_epoch: int = -1,
        warmup: float = 0.0,
    ) -> None:
        if shape not in SHAPES:
            raise ValueError(f"shape={shape!r}: choose one of {', '.join(SHAPES)}")
        if total_steps is not None and total_steps < 1:
            raise ValueError(f"total_steps={total_steps}: give the number of optimizer steps, 1 or more")
        if not 0.0 <= warmup < 1.0:
            raise ValueError(f"warmup={warmup}: give the share of the run in which the rate rises, 0 or more, below 1")
        self.shape = shape
        self.warmup = warmup
        self._total_steps = total_steps
        super().__init__(optimizer, self._factor, last_epoch)

    @property
    def total_steps(self) -> int | None:
        """Horizon T, optimizer steps; setting it before the first step sets the rate of that step as well."""
        return self._total_steps

    @total_steps.setter
    def total_steps(self, steps: int) -> None:
        self._total_steps = steps
        if self.last_epoch == 0:  # where the warm-up begins depends on how long it is
            for group, rate in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = rate * self._factor(0)
            self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the step; keeps the horizon that this object was given, as a resumed run may be longer."""
        own = self._total_steps
        super().load_state_dict(state_dict)
        self._total_steps = own if own is not None else self._total_steps

    def _factor(self, step: int) -> float:
        if self._total_steps is None:
            if step == 0:
                return 1.0
            raise ValueError(f"HorizonLR(shape={self.shape!r}) needs total_steps: give the run's optimizer steps")
        rising = round(self.warmup * self._total_steps)
        if step < rising:
            return (step + 1) / (rising + 1)
        return SHAPES[self.shape]((step - rising) / (self._total_steps - rising))
