"""Validates horizons, losses and optimizers."""

from __future__ import annotations

import math
from typing import SupportsFloat

import numpy as np
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from metalr.core.host_backend import isfinite
from metalr.core.sample import trained
from metalr.core.steps import with_inner

STEP_FINDERS = {
    "d": "estimates its own step size (group['d'])",
    "rbar": "finds its own step size from the distance it has gone (group['rbar'])",
    "reps_rel": "finds its own step size from the distance it has gone (group['reps_rel'])",
    "s_prev": "finds its own scale of the updates (s_prev)",
}
"""Keys under which an optimizer keeps a step size that it finds itself, or what it finds it by, whatever its class."""

AVERAGERS = ("weight_sum", "train_mode")
"""Keys of one that averages its iterates in place of a schedule (schedule-free)."""


_UNFREEZE = (
    "unfreeze some of the model; an adapter of PEFT is loaded to be trained by "
    "PeftModel.from_pretrained(model, adapter, is_trainable=True)"
)
"""What to do where nothing is trained."""


def checked_horizon(total_steps: SupportsFloat | None) -> int | None:
    """Reads a horizon.

    Args:
        total_steps: a whole number of 1 or more, of any type (int, float, NumPy's, a tensor with one element); or None,
            infinity or -1, as frameworks say of a run without an end.

    Returns:
        An int, or None: the anytime mode.

    Raises:
        ValueError: for anything else, NaN among it.
    """
    if total_steps is None:
        return None
    try:
        number = math.nan if isinstance(total_steps, (bool, np.bool_, str, bytes)) else float(total_steps)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several elements
        number = math.nan
    if number in (math.inf, -1.0):
        return None
    if not number >= 1.0 or not number.is_integer():
        raise ValueError(
            f"total_steps={total_steps}: give the number of optimizer steps of the whole run, 1 or more, "
            "or None where it is unknown"
        )
    return int(number)


def checked_steps_per_epoch(steps_per_epoch: SupportsFloat | None) -> float | None:
    """Reads the length of an epoch.

    Args:
        steps_per_epoch: optimizer steps of one pass over the training data, above 0, a part of a step among them; or
            None or infinity, as for data without an end.

    Returns:
        A float, or None: unknown.

    Raises:
        ValueError: for anything else, NaN among it.
    """
    if steps_per_epoch is None:
        return None
    number = float(steps_per_epoch)
    if not number > 0.0:
        raise ValueError(
            f"steps_per_epoch={steps_per_epoch}: give the optimizer steps of one pass over the training data, above 0, "
            "or None where there is no such thing"
        )
    return None if math.isinf(number) else number


def check_optimizer(optimizer: Optimizer) -> None:
    """Refuses an optimizer that MetaLR cannot drive.

    Raises:
        ValueError: for one without parameters to train, one that finds its own step or schedule or wraps one that
            does, and one that is stepped inside `backward()`.
    """
    groups = optimizer.param_groups
    if not any(group["params"] for group in groups):
        raise ValueError(
            "optimizer has no parameters: give it the model's, as in SGD(model.parameters(), lr=0.1); a Trainer gives "
            f"it those that require a gradient, so {_UNFREEZE}"
        )
    if not any(trained(group) for group in groups):
        raise ValueError(f"optimizer has no parameter that requires a gradient: {_UNFREEZE}")
    for each in with_inner(optimizer):
        _check_kind(each)
    if any(hasattr(p, "_in_backward_optimizers") for group in groups for p in trained(group)):
        raise ValueError(
            f"optimizer is {type(optimizer).__name__}, which is stepped inside backward(), where MetaLR cannot decide: "
            "call optimizer.step() after loss.backward()"
        )


def _check_kind(optimizer: Optimizer) -> None:
    """Refuses one that finds its own step or schedule; wrappers keep the keys as attributes, others in groups."""
    groups, name = optimizer.param_groups, type(optimizer).__name__
    places = [*groups, {key: None for key in ("s_prev", "train_mode") if hasattr(optimizer, key)}]
    if isinstance(optimizer, LBFGS):
        raise ValueError(f"optimizer is {name}, which searches for its own step size; use it without MetaLR")
    for key, how in STEP_FINDERS.items():
        # The d of torch's Adafactor is a bound on the size of an update; it is the one that has a beta2_decay.
        if any(key in place and "beta2_decay" not in place for place in places):
            raise ValueError(
                f"optimizer is {name}, which {how}, and two controllers of one step work against each other: use it "
                "without MetaLR, or give MetaLR an optimizer with a rate to set, such as AdamW"
            )
    if any(group.get("relative_step") and group.get("lr") is not None for group in groups):
        raise ValueError(f"optimizer is {name}, which sets its own rate (relative_step=True): give relative_step=False")
    if any("lr_power" in group for group in groups):
        raise ValueError(
            f"optimizer is {name}, whose weights are its rate times a sum of gradients (FTRL), and would go to zero "
            "with it: use it without MetaLR, or give MetaLR an optimizer that adds updates up, such as Adagrad"
        )
    if any(key in place for place in places for key in AVERAGERS):
        raise ValueError(
            f"optimizer is {name}, which averages its iterates in place of a schedule: use it without MetaLR, or give "
            "MetaLR the optimizer that it is made from, such as AdamW or SGD"
        )


def check_scalar(loss: Tensor | float) -> None:
    """Refuses a loss that is no scalar.

    Raises:
        ValueError: for one.
    """
    if isinstance(loss, Tensor) and loss.numel() != 1:
        raise ValueError(f"loss has shape {tuple(loss.shape)}: give a scalar, such as loss.mean()")


def check_loss(loss: Tensor | float, step: int) -> None:
    """Refuses a loss that is no scalar, and one that is not finite at the first step.

    Raises:
        ValueError: for either.
    """
    check_scalar(loss)
    if step == 0 and not isfinite(float(loss)):
        raise ValueError(
            f"loss={float(loss)} at the first step: no learning rate can fix that; check the model's "
            "initialisation, the data and the precision"
        )
