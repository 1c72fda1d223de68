"""A run that falls, and then collapses: its loss is given, and its gradient dies with it."""

import math

from torch import Tensor

FALL, STEPS = 40, 70
"""Steps for which it learns, and all of them: with this horizon, one collapse is seen."""

LEVEL = 2.3
"""Its loss where it began, and where it ends."""


def level(step: int) -> float:
    """The loss of a step: a noisy descent, and then what it began with."""
    noise = 0.02 * math.sin(7.0 * step)
    return noise + (0.3 + (LEVEL - 0.3) * math.exp(-step / 10) if step < FALL else LEVEL)


def collapsing(loss: Tensor, step: int) -> Tensor:
    """A loss with that value, and the gradient of another one: a thousandth of it from the collapse on."""
    scale = 1.0 if step < FALL else 1e-3
    return scale * (loss - loss.detach()) + level(step)
