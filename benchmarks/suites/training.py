"""An optimizer with what sets its rate: schedules set by hand, rivals with optimizers of their own, `MetaLR`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau

from benchmarks.suites.problem import Problem
from benchmarks.suites.schedules import FOUND, LEARNED, RIVALS, TITLES, WARM_UP, package
from metalr import MetaLR
from metalr.schedules import SHAPES, HorizonLR
from models import Boosting

WEIGHT_DECAY = torch.optim.AdamW([torch.zeros(1)]).defaults["weight_decay"]
"""AdamW's own, which the rivals in its cells have, too."""


class Training:
    """Steps an optimizer and what sets its rate.

    Args:
        optimizer: of the problem's model.
        scheduler: stepped after each step, where there is one.

    Attributes:
        rate: of the last step, first group.
    """

    def __init__(self, optimizer: Optimizer, scheduler: LRScheduler | None = None) -> None:
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.rate = float(optimizer.param_groups[0]["lr"])

    def step(self, loss: Tensor) -> None:
        """Does one optimizer step, from the loss of its batch."""
        self.optimizer.zero_grad()
        loss.backward()
        self.before_update(loss.detach())
        self.rate = float(self.optimizer.param_groups[0]["lr"])
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()

    def before_update(self, loss: Tensor) -> None:
        """Does what is to be done once the gradients are there."""

    def observe(self, val_loss: float) -> None:
        """Takes note of a validation loss."""

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Surrounds an evaluation."""
        yield


class Learned(Training):
    """Trains under `MetaLR`, whose arguments are those after the optimizer."""

    def __init__(self, optimizer: Optimizer, total_steps: int | None, policy: str, **options: Any) -> None:
        super().__init__(optimizer)
        self.meta_lr = MetaLR(optimizer, total_steps, policy, **options)

    def before_update(self, loss: Tensor) -> None:
        """Sets the rate."""
        self.meta_lr.step(loss)


class Plateau(Training):
    """Divides the rate by ten, torch's default, when two evaluations have been no better than the best before.

    torch waits for ten, which is most of the evaluations that a run of a suite has.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer)
        self.plateau = ReduceLROnPlateau(optimizer, patience=1)

    def observe(self, val_loss: float) -> None:
        """Looks whether it still falls."""
        self.plateau.step(val_loss)


class ScheduleFree(Training):
    """Evaluates at the average of the iterates, with batch norm's statistics measured there, as its authors ask."""

    def __init__(self, optimizer: Any, problem: Problem) -> None:
        super().__init__(optimizer)
        self.problem = problem
        optimizer.train()

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Switches to the average."""
        self.optimizer.eval()  # type: ignore[attr-defined]
        self.problem.recalibrate()
        yield
        self.optimizer.train()  # type: ignore[attr-defined]


class Averaged(Training):
    """Evaluates at the polynomial-decay average of the iterates, as DoG's authors ask."""

    def __init__(self, optimizer: Optimizer, averager: Any, problem: Problem) -> None:
        super().__init__(optimizer)
        self.averager = averager
        self.problem = problem

    def step(self, loss: Tensor) -> None:
        """Does one optimizer step, and averages."""
        super().step(loss)
        self.averager.step()

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Switches to the average."""
        own, self.problem.model = self.problem.model, self.averager.averaged_model
        yield
        self.problem.model = own


@dataclass(frozen=True)
class Setting:
    """Holds all that a `Training` depends on beside its problem.

    Attributes:
        optimizer: "sgd", "adam", "adamw" or "boosting".
        schedule: one of `TITLES`.
        rate: initial rate.
        steps: horizon T.
        policy: shipped name or file, with a learned schedule.
    """

    optimizer: str
    schedule: str
    rate: float
    steps: int
    policy: str = ""

    def start(self, problem: Problem) -> Training:
        """Makes the optimizer and its schedule.

        Raises:
            ValueError: for an unknown schedule.
        """
        if self.schedule not in TITLES:
            raise ValueError(f"schedule={self.schedule!r}: choose of {', '.join(TITLES)}")
        if self.schedule in RIVALS:
            return _MAKERS[self.schedule](problem, self.rate, self.steps)
        optimizer = make_optimizer(self.optimizer, trainable(problem.model), self.rate)
        if self.schedule in LEARNED:
            horizon = self.steps if self.schedule == "default" else None
            return Learned(optimizer, horizon, self.policy, steps_per_epoch=problem.steps_per_epoch)
        if self.schedule == "plateau":
            return Plateau(optimizer)
        shape = self.schedule.removeprefix("finder_") if self.schedule in FOUND else self.schedule
        return Training(optimizer, _scheduler(shape, optimizer, self.rate, self.steps))


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """Lists the parameters that are trained."""
    return [param for param in model.parameters() if param.requires_grad]


def make_optimizer(name: str, params: Iterable[Any], lr: float) -> Optimizer:
    """Makes one of the optimizers of `Setting`."""
    if name == "sgd":
        return torch.optim.SGD(params, lr=lr, momentum=0.9, fused=True)
    if name == "adam":
        return torch.optim.Adam(params, lr=lr, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(params, lr=lr, fused=True)  # fused: a millisecond a step where tensors are many
    return Boosting(params, lr=lr)


def _scheduler(name: str, optimizer: Optimizer, lr: float, steps: int) -> LRScheduler:
    if name == "wsd":  # the shares of Hägele et al. 2024
        get_schedule = package(name).get_wsd_schedule
        return get_schedule(optimizer, steps // 10, steps // 5, num_training_steps=steps, decay_type="1-sqrt")
    if name == "one_cycle":  # Smith 2018, torch's defaults; boosting has no momentum to cycle
        cycles = bool({"momentum", "betas"} & set(optimizer.defaults))
        return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, cycle_momentum=cycles)
    if name in SHAPES:
        return HorizonLR(optimizer, name, steps)
    return HorizonLR(optimizer, name.removesuffix("_warmup"), steps, warmup=WARM_UP)


def _prodigy(problem: Problem, rate: float, steps: int, **options: Any) -> Training:
    optimizer = package("prodigy_cosine").Prodigy(
        trainable(problem.model), lr=rate, weight_decay=WEIGHT_DECAY, **options
    )
    return Training(optimizer, HorizonLR(optimizer, "cosine", steps))


def _d_adaptation(problem: Problem, rate: float, steps: int) -> Training:
    optimizer = package("d_adaptation_cosine").DAdaptAdam(
        trainable(problem.model), lr=rate, weight_decay=WEIGHT_DECAY, decouple=True
    )
    return Training(optimizer, HorizonLR(optimizer, "cosine", steps))


def _schedule_free_adamw(problem: Problem, rate: float, steps: int) -> Training:
    optimizer = package("schedule_free_adamw").AdamWScheduleFree(
        trainable(problem.model), lr=rate, weight_decay=WEIGHT_DECAY, warmup_steps=round(WARM_UP * steps)
    )
    return ScheduleFree(optimizer, problem)


def _schedule_free_sgd(problem: Problem, rate: float, steps: int) -> Training:
    optimizer = package("schedule_free_sgd").SGDScheduleFree(
        trainable(problem.model), lr=rate, warmup_steps=round(WARM_UP * steps)
    )
    return ScheduleFree(optimizer, problem)


def _dog(problem: Problem, rate: float, steps: int) -> Training:
    first = 1e-4 if problem.has_batch_norm else 1e-6  # as its authors suggest
    optimizer = package("dog").DoG(trainable(problem.model), lr=rate, reps_rel=first)
    return Averaged(optimizer, package("dog").PolynomialDecayAverager(problem.model), problem)


_MAKERS: dict[str, Callable[[Problem, float, int], Training]] = {
    "prodigy_cosine": partial(_prodigy, use_bias_correction=True, safeguard_warmup=True),
    "prodigy_plain_cosine": _prodigy,
    "d_adaptation_cosine": _d_adaptation,
    "schedule_free_adamw": _schedule_free_adamw,
    "schedule_free_sgd": _schedule_free_sgd,
    "dog": _dog,
}
