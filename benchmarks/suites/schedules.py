"""What sets the learning rate of a run: hand-made schedules, rivals with optimizers of their own, learned policies."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from benchmarks.suites.problem import Problem
from metalr import LRPolicy, MetaLR
from metalr.core.features import SCHEMA_VERSION
from metalr.schedules import SHAPES, HorizonLR
from models import Boosting

LEARNED = ("default", "anytime")
"""`MetaLR(optimizer, total_steps=T)` and `MetaLR(optimizer)`."""

HAND_MADE = (*SHAPES, "wsd", "one_cycle", "linear_warmup")
"""Schedules that are tuned by their initial rate."""


@dataclass(frozen=True)
class Rival:
    """Describes an optimizer that is run untuned.

    Attributes:
        package: that it comes from.
        rate: its published default.
    """

    package: str
    rate: float


RIVALS = {
    "prodigy_cosine": Rival("prodigyopt", 1.0),
    "schedule_free_adamw": Rival("schedulefree", 0.0025),
    "schedule_free_sgd": Rival("schedulefree", 1.0),
    "d_adaptation": Rival("dadaptation", 1.0),
}
"""Optimizers of their own, at their published defaults."""

PACKAGES = {name: rival.package for name, rival in RIVALS.items()} | {
    "wsd": "transformers",
    "linear_warmup": "transformers",
}
"""Names what a schedule needs beside torch."""


WARM_UP = 0.06
"""Share of the run in which `linear_warmup` rises."""


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
        """Is called when the gradients are there."""

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Surrounds an evaluation."""
        yield


class Learned(Training):
    """Trains under `MetaLR`."""

    def __init__(self, optimizer: Optimizer, total_steps: int | None, policy: str) -> None:
        super().__init__(optimizer)
        self.meta_lr = MetaLR(optimizer, total_steps, policy)

    def before_update(self, loss: Tensor) -> None:
        """Sets the rate."""
        self.meta_lr.step(loss)


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


@dataclass(frozen=True)
class Setting:
    """Holds all that a `Training` depends on beside its problem.

    Attributes:
        optimizer: "sgd", "adam", "adamw" or "boosting"; or "own" with a rival.
        schedule: one of `HAND_MADE`, `RIVALS` or `LEARNED`.
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
        params = [param for param in problem.model.parameters() if param.requires_grad]
        if self.schedule in RIVALS:
            return _rival(self.schedule, params, self.rate, problem, self.steps)
        optimizer = _optimizer(self.optimizer, params, self.rate)
        if self.schedule in LEARNED:
            return Learned(optimizer, self.steps if self.schedule == "default" else None, self.policy)
        return Training(optimizer, _scheduler(self.schedule, optimizer, self.rate, self.steps))


def _optimizer(name: str, params: Iterable[Any], lr: float) -> Optimizer:
    if name == "sgd":
        return torch.optim.SGD(params, lr=lr, momentum=0.9, fused=True)
    if name == "adam":
        return torch.optim.Adam(params, lr=lr, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(params, lr=lr, fused=True)  # fused: a millisecond a step where tensors are many
    return Boosting(params, lr=lr)


def _scheduler(name: str, optimizer: Optimizer, lr: float, steps: int) -> LRScheduler:
    if name in SHAPES:
        return HorizonLR(optimizer, name, steps)
    if name == "wsd":  # a tenth to warm up; the last fifth 1 - sqrt, as Hägele et al. 2024
        get_schedule = _package(name).get_wsd_schedule
        return get_schedule(optimizer, steps // 10, steps // 5, num_training_steps=steps, decay_type="1-sqrt")
    if name == "linear_warmup":  # Devlin et al. 2019's shape; 6 % to warm up, as Liu et al. 2019
        get_schedule = _package(name).get_linear_schedule_with_warmup
        return get_schedule(optimizer, round(WARM_UP * steps), steps)
    if name == "one_cycle":  # Smith 2018, torch's defaults; boosting has no momentum to cycle
        cycles = bool({"momentum", "betas"} & set(optimizer.defaults))
        return OneCycleLR(optimizer, max_lr=lr, total_steps=steps, cycle_momentum=cycles)
    raise ValueError(f"schedule={name!r}: choose of {', '.join((*LEARNED, *HAND_MADE, *RIVALS))}")


def _rival(name: str, params: Iterable[nn.Parameter], rate: float, problem: Problem, steps: int) -> Training:
    package = _package(name)
    if name == "prodigy_cosine":
        optimizer = package.Prodigy(params, lr=rate)
        return Training(optimizer, HorizonLR(optimizer, "cosine", steps))
    if name == "d_adaptation":
        return Training(package.DAdaptAdam(params, lr=rate))
    kinds: dict[str, Callable[..., Any]] = {
        "schedule_free_adamw": package.AdamWScheduleFree,
        "schedule_free_sgd": package.SGDScheduleFree,
    }
    return ScheduleFree(kinds[name](params, lr=rate), problem)


def _package(schedule: str) -> ModuleType:
    return importlib.import_module(PACKAGES[schedule])


def check_packages(schedules: Iterable[str]) -> None:
    """Imports what the schedules need.

    Raises:
        ImportError: for a package that is not there.
    """
    for schedule in schedules:
        if schedule in PACKAGES:
            try:
                _package(schedule)
            except ImportError as error:
                raise ImportError(
                    f"schedule {schedule!r} needs {PACKAGES[schedule]}: pip install '.[experiments]', or name others "
                    "with --schedules"
                ) from error


def fingerprint(policy: str) -> str:
    """Digests a policy's weights and the features' schema: runs with another one are other runs."""
    return f"{LRPolicy.load(policy).fingerprint()}-{SCHEMA_VERSION}"
