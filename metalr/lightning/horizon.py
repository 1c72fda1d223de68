"""The horizon of an optimizer in a Trainer: the steps that it has taken plus those to come.

It is recomputed at each decision, from the Trainer's position and settings. So it is right
after a resume with another batch size, number of devices, accumulation, limit or end, when a dataloader grows, and
when a GradScaler skips steps; where nothing changes, it stays the same number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from metalr.lightning.packages import instances

if TYPE_CHECKING:
    import lightning as L


class Horizon:
    """Computes the horizon of one optimizer of a Trainer.

    Under automatic optimization, the steps to come are counted from the batches and epochs that are left, the windows
    of accumulation, and `max_steps`. Under manual optimization they follow from the pace at which the optimizer has
    stepped so far, see `StepPace`; with `max_time`, from the time that its steps have taken, see `TimePace`. The
    earliest end counts.

    Args:
        trainer: when a fit starts.
        automatic: whether the module's optimization is automatic.
        done: steps that the optimizer has taken, before a resume.
        state: `state_dict` of the part of the run before a resume.
    """

    def __init__(self, trainer: L.Trainer, automatic: bool, done: int = 0, state: dict[str, Any] | None = None) -> None:
        timer = time_limit(trainer)
        self._time = None if timer is None else TimePace(timer)
        self._pace = None if automatic else StepPace(Position.of(trainer, done), len(trainer.optimizers), state)

    def planned(self, trainer: L.Trainer, done: int) -> int | None:
        """Counts the steps of the whole run as known when a fit starts; None where the Trainer has no end.

        Args:
            trainer: that the fit is of.
            done: steps that the optimizer has taken, before a resume.
        """
        steps = self._counted(trainer, done, started=False)
        return steps if steps is not None or self._time is None else done + 1  # the first step measures the time

    def at_step(self, trainer: L.Trainer, done: int) -> int:
        """Counts the steps of the whole run as known at a decision, the same on all ranks; at least `done + 1`."""
        counted = self._counted(trainer, done, started=True)
        ends = [] if counted is None else [counted]
        if self._time is not None:
            timed = self._time.at_step(done)
            ends.append(int(trainer.strategy.broadcast(timed)) if trainer.world_size > 1 else timed)
        return max(done + 1, min(ends, default=done + 1))

    def after_batch(self, trainer: L.Trainer, done: int) -> None:
        """Notes how many steps the optimizer has taken when a batch is over."""
        if self._pace is not None:
            self._pace.after_batch(Position.of(trainer, done))

    def state_dict(self) -> dict[str, Any]:
        """Returns the pace of an optimizer under manual optimization."""
        return {} if self._pace is None else self._pace.state_dict()

    def _counted(self, trainer: L.Trainer, done: int, started: bool) -> int | None:
        """Counts the steps of the whole run by epochs, batches and `max_steps`."""
        if self._pace is not None:
            return self._pace.horizon(trainer, started)
        ends = []
        steps = _steps_of_epochs(trainer, started)
        if steps is not None:
            ends.append(steps)
        if trainer.max_steps >= 0:
            ends.append(trainer.max_steps - trainer.global_step)
        return max(done + 1, done + min(ends)) if ends else None


def steps_per_epoch(trainer: L.Trainer, automatic: bool) -> int | None:
    """Counts the optimizer steps of one pass over the training data; None for data without an end.

    None under `overfit_batches`, too: such a run is meant to memorise its batches, and a policy that knew of its many
    epochs would prevent that.

    A pass is over all of the loader, also where `limit_train_batches` makes the Trainer's epochs shorter: each of them
    has other samples, as loaders shuffle.

    Args:
        trainer: when a fit starts.
        automatic: whether the module's optimization is automatic; else one step a batch is taken for it.
    """
    loader: Any = trainer.train_dataloader
    if getattr(trainer, "overfit_batches"):  # noqa: B009 - which the Trainer's class does not declare
        return None
    batches = trainer.num_training_batches
    if isinstance(loader, Sized) and not isinstance(loader, (Sequence, Mapping)):
        with suppress(TypeError, NotImplementedError):  # an iterable data set without a length
            batches = max(batches, len(loader))
    if math.isinf(batches) or not batches:
        return None
    return math.ceil(batches / _windows(trainer, 1, started=False)[0]) if automatic else int(batches)


class Position(NamedTuple):
    """Counts how far an optimizer is when a batch is over: its steps, the Trainer's batches and its `global_step`."""

    steps: int
    batches: int
    counted: int

    @classmethod
    def of(cls, trainer: L.Trainer, steps: int) -> Position:
        """Reads it off the Trainer between two batches, or in the hook at the end of one."""
        return cls(steps, trainer.fit_loop.total_batch_idx + 1, trainer.global_step)


class StepPace:
    """Measures the steps that an optimizer takes a batch: under manual optimization the module chooses them.

    Until two batches with a step of it have shown a pace, one step a batch is taken for it; until one has, all
    optimizers are taken for ones that `max_steps` counts. The pace is the mean since the first of them.

    Args:
        start: where the optimizer is when the fit starts.
        optimizers: of the Trainer.
        state: `state_dict` of the part of the run before a resume.
    """

    def __init__(self, start: Position, optimizers: int, state: dict[str, Any] | None = None) -> None:
        self._optimizers = optimizers
        positions = (state or {}).get("positions") or [start]
        self._positions = [Position(*position) for position in positions]

    def after_batch(self, position: Position) -> None:
        """Keeps where the optimizer first and last stepped, after where it started."""
        if position.steps != self._positions[-1].steps:
            self._positions = [*self._positions[:2], position]

    def horizon(self, trainer: L.Trainer, started: bool) -> int | None:
        """Counts the steps of the whole run; None where the Trainer has no end."""
        last, ends = self._positions[-1], []
        left = _batches_of_epochs(trainer, started)
        if left is not None:
            ends.append(trainer.fit_loop.total_batch_idx + 1 - started + left)
        if trainer.max_steps >= 0 and self.counted_per_batch > 0:
            ends.append(last.batches + math.ceil((trainer.max_steps - last.counted) / self.counted_per_batch))
        return last.steps + math.floor((min(ends) - last.batches) * self.steps_per_batch) if ends else None

    @property
    def steps_per_batch(self) -> Fraction:
        """Steps of the optimizer a batch."""
        if len(self._positions) < 3:
            return Fraction(1)
        _, first, last = self._positions
        return Fraction(last.steps - first.steps, last.batches - first.batches)

    @property
    def counted_per_batch(self) -> Fraction:
        """Steps a batch that `max_steps` counts, of all optimizers."""
        if len(self._positions) < 2:
            return Fraction(self._optimizers)
        first, last = self._positions[-2:]
        return Fraction(last.counted - first.counted, last.batches - first.batches)

    def state_dict(self) -> dict[str, Any]:
        """Returns where the optimizer started, first and last stepped, as whole numbers."""
        return {"positions": [list(position) for position in self._positions]}


class TimePace:
    """Estimates the steps that fit into a Timer's time at the pace of this part of the run, from its first step on.

    At that step, nothing has been measured but the time from the start to it, or that of the part before a resume.

    Args:
        timer: a Timer with a duration.
    """

    def __init__(self, timer: Any) -> None:
        self._timer = timer
        self._first: tuple[int, float] | None = None

    def at_step(self, done: int) -> int:
        """Estimates the steps of the whole run at a decision, the coming step included."""
        elapsed, remaining = self._timer.time_elapsed(), max(self._timer.time_remaining(), 0.0)
        self._first, (first, since) = self._first or (done, elapsed), self._first or (-1, 0.0)
        to_come: int = math.ceil(remaining * (done - first) / max(elapsed - since, _SHORTEST))
        return done + 1 + to_come


_SHORTEST = 1e-3
"""Seconds below which no time is measured."""


def time_limit(trainer: L.Trainer) -> Any:
    """Finds the Timer that ends the fit, such as that of `max_time`; None where there is none."""
    timers = [timer for timer in instances(trainer, "callbacks.Timer") if timer.time_remaining() is not None]
    return min(timers, key=lambda timer: timer.time_remaining(), default=None)


def _batches_of_epochs(trainer: L.Trainer, started: bool) -> int | None:
    """Counts the batches until `max_epochs`, that under way included; None where there is no such end."""
    batches, epochs = trainer.num_training_batches, _epochs_to_come(trainer)
    if epochs is None or math.isinf(batches):
        return None
    here = max(int(batches) - _batches_done(trainer, started), started)  # one is under way, even in excess
    return here + int(batches) * (epochs - 1) if epochs else 0


def _steps_of_epochs(trainer: L.Trainer, started: bool) -> int | None:
    """Counts the optimizer steps until `max_epochs` under automatic optimization, that under way included."""
    batches, epochs = trainer.num_training_batches, _epochs_to_come(trainer)
    if epochs is None or math.isinf(batches):
        return None
    if epochs == 0:
        return 0
    present, *later = _windows(trainer, epochs, started)
    here = max(math.ceil(batches / present) - _batches_done(trainer, started) // present, started)
    return here + sum(math.ceil(batches / window) for window in later)


def _epochs_to_come(trainer: L.Trainer) -> int | None:
    """Counts the epochs until `max_epochs`, that under way included."""
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return None
    return max(trainer.max_epochs - _epochs_done(trainer), 0)


def _epochs_done(trainer: L.Trainer) -> int:
    """Counts the epochs that are over as Lightning compares them with `max_epochs`; `current_epoch` may lag."""
    progress: Any = trainer.fit_loop.epoch_progress.current
    return int(progress.processed)


def _batches_done(trainer: L.Trainer, started: bool) -> int:
    """Counts the batches of the present epoch that are over."""
    loop = trainer.fit_loop
    if started:  # the present one is not over
        return int(loop.batch_idx)
    progress: Any = loop.epoch_progress.current
    return int(loop.batch_idx) + 1 if progress.ready > progress.processed else 0  # resumed in the middle of an epoch


def _windows(trainer: L.Trainer, epochs: int, started: bool) -> list[int]:
    """Lists the batches of an accumulation window in each of the epochs to come, the present one first."""
    schedulers = instances(trainer, "callbacks.GradientAccumulationScheduler")
    if not schedulers:
        return [int(trainer.accumulate_grad_batches)] * epochs
    first = trainer.current_epoch  # by which the scheduler goes, also where it lags behind the epochs that are over
    windows = [int(schedulers[-1].get_accumulate_grad_batches(epoch)) for epoch in range(first, first + epochs)]
    if started:  # an epoch that is resumed in its middle keeps the window of the Trainer
        windows[0] = int(trainer.accumulate_grad_batches)
    return windows
