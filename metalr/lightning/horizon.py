"""The horizon of an optimizer in a Trainer: the steps that it has taken plus those that it has to come.

It is worked out anew at each decision, from where the Trainer is and what it is set to do from there. So it is right
after a resume with another batch size, number of devices, accumulation, limit or end, when a dataloader grows, and
when a GradScaler skips steps; where nothing changes, it stays the same number.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from metalr.lightning.packages import instances

if TYPE_CHECKING:
    import lightning as L


class Horizon:
    """Works out the horizon of one optimizer of a Trainer.

    Under automatic optimization, the steps to come are counted from the batches and epochs that are left, the windows
    of accumulation, and `max_steps`. Under manual optimization they follow from the pace at which the optimizer has
    stepped so far, see `StepPace`; with `max_time`, from the time that its steps have taken, see `TimePace`. What ends
    first counts.

    Args:
        trainer: when a fit starts.
        automatic: whether the module's optimization is automatic.
        done: steps that the optimizer has taken, before a resume.
        state: `state_dict` of the part of the run before a resume.
    """

    def __init__(self, trainer: L.Trainer, automatic: bool, done: int = 0, state: dict[str, Any] | None = None) -> None:
        timer = time_limit(trainer)
        self._time = None if timer is None else TimePace(timer)
        self._pace = None if automatic else StepPace(Mark.of(trainer, done), len(trainer.optimizers), state)

    def planned(self, trainer: L.Trainer, done: int) -> int | None:
        """Steps of the whole run as known when a fit starts; None where the Trainer has no end.

        Args:
            trainer: that the fit is of.
            done: steps that the optimizer has taken, before a resume.
        """
        steps = self._counted(trainer, done, started=False)
        return steps if steps is not None or self._time is None else done + 1  # of the time, the first step will tell

    def at_step(self, trainer: L.Trainer, done: int) -> int:
        """Steps of the whole run as known at a decision, the same on all ranks; never below `done + 1`."""
        counted = self._counted(trainer, done, started=True)
        ends = [] if counted is None else [counted]
        if self._time is not None:
            timed = self._time.at_step(done)
            ends.append(int(trainer.strategy.broadcast(timed)) if trainer.world_size > 1 else timed)
        return max(done + 1, min(ends, default=done + 1))

    def after_batch(self, trainer: L.Trainer, done: int) -> None:
        """Notes how many steps the optimizer has taken when a batch is over."""
        if self._pace is not None:
            self._pace.after_batch(Mark.of(trainer, done))

    def state_dict(self) -> dict[str, Any]:
        """Returns the pace of an optimizer under manual optimization."""
        return {} if self._pace is None else self._pace.state_dict()

    def _counted(self, trainer: L.Trainer, done: int, started: bool) -> int | None:
        """Steps of the whole run by epochs, batches and `max_steps`."""
        if self._pace is not None:
            return self._pace.horizon(trainer, started)
        ends = []
        steps = _steps_of_epochs(trainer, started)
        if steps is not None:
            ends.append(steps)
        if trainer.max_steps >= 0:
            ends.append(trainer.max_steps - trainer.global_step)
        return max(done + 1, done + min(ends)) if ends else None


class Mark(NamedTuple):
    """Where an optimizer is when a batch is over: its steps, the Trainer's batches and its `global_step`."""

    steps: int
    batches: int
    counted: int

    @classmethod
    def of(cls, trainer: L.Trainer, steps: int) -> Mark:
        """Reads it off the Trainer between two batches, or in the hook at the end of one."""
        return cls(steps, trainer.fit_loop.total_batch_idx + 1, trainer.global_step)


class StepPace:
    """The steps that an optimizer takes a batch, measured: under manual optimization they are the module's to choose.

    Until two batches with a step of it have shown a pace, one step a batch is taken for it, and all optimizers for
    ones that `max_steps` counts.

    Args:
        start: where the optimizer is when the fit starts.
        optimizers: of the Trainer.
        state: `state_dict` of the part of the run before a resume.
    """

    def __init__(self, start: Mark, optimizers: int, state: dict[str, Any] | None = None) -> None:
        self._start, self._last = start, start
        self._first: Mark | None = None
        self._steps, self._counted, self._resumed = Fraction(1), Fraction(optimizers), bool(state)
        if state:
            self._steps, self._counted = Fraction(*state["steps"]), Fraction(*state["counted"])
            self._last = Mark(*state["last"])

    def after_batch(self, mark: Mark) -> None:
        """Measures, where the optimizer stepped in the batch."""
        if mark.steps == self._last.steps:
            return
        if self._first is not None:
            batches = mark.batches - self._first.batches
            self._steps = Fraction(mark.steps - self._first.steps, batches)
            self._counted = Fraction(mark.counted - self._first.counted, batches)
        else:
            self._first = mark
            if not self._resumed:  # what is counted of the other optimizers shows in the first batches
                self._counted = Fraction(mark.counted - self._start.counted, mark.batches - self._start.batches)
        self._last = mark

    def horizon(self, trainer: L.Trainer, started: bool) -> int | None:
        """Steps of the whole run; None where the Trainer has no end."""
        ends: list[float] = []
        left = _batches_of_epochs(trainer, started)
        if left is not None:
            ends.append(trainer.fit_loop.total_batch_idx + 1 - started + left)
        if trainer.max_steps >= 0 and self._counted > 0:
            ends.append(self._last.batches + math.ceil((trainer.max_steps - self._last.counted) / self._counted))
        return self._last.steps + math.floor((int(min(ends)) - self._last.batches) * self._steps) if ends else None

    def state_dict(self) -> dict[str, Any]:
        """Returns the pace and the last mark, as whole numbers."""
        rates = {"steps": self._steps, "counted": self._counted}
        return {name: list(rate.as_integer_ratio()) for name, rate in rates.items()} | {"last": list(self._last)}


class TimePace:
    """The steps that fit into a Timer's time at the pace of this part of the run, from its first step on.

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
        return done + 1 + math.ceil(remaining * (done - first) / max(elapsed - since, _SHORTEST))


_SHORTEST = 1e-3
"""Seconds below which no time is measured."""


def time_limit(trainer: L.Trainer) -> Any:
    """Finds the Timer that ends the fit, such as that of `max_time`; None where there is none."""
    timers = [timer for timer in instances(trainer, "callbacks.Timer") if timer.time_remaining() is not None]
    return min(timers, key=lambda timer: timer.time_remaining(), default=None)


def _batches_of_epochs(trainer: L.Trainer, started: bool) -> int | None:
    """Batches to come until `max_epochs`, that under way included; None where there is no such end."""
    batches, epochs = trainer.num_training_batches, _epochs_to_come(trainer)
    if epochs is None or math.isinf(batches):
        return None
    return max(int(batches) * epochs - _batches_done(trainer, started), 0)


def _steps_of_epochs(trainer: L.Trainer, started: bool) -> int | None:
    """Optimizer steps to come until `max_epochs` under automatic optimization, that under way included."""
    batches, epochs = trainer.num_training_batches, _epochs_to_come(trainer)
    if epochs is None or math.isinf(batches):
        return None
    windows = _windows(trainer, epochs)
    here = _batches_done(trainer, started) // windows[0][0] if windows else 0
    return max(sum(count * math.ceil(batches / window) for window, count in windows) - here, 0)


def _epochs_to_come(trainer: L.Trainer) -> int | None:
    """Epochs until `max_epochs`, that under way included."""
    if trainer.max_epochs is None or trainer.max_epochs < 0:
        return None
    return max(trainer.max_epochs - trainer.current_epoch, 0)


def _batches_done(trainer: L.Trainer, started: bool) -> int:
    """Batches of the epoch under way that are over."""
    loop = trainer.fit_loop
    if started:  # the present one is not over
        return int(loop.batch_idx)
    progress = loop.epoch_progress.current
    return int(loop.batch_idx) + 1 if progress.ready > progress.processed else 0  # resumed in the middle of an epoch


def _windows(trainer: L.Trainer, epochs: int) -> list[tuple[int, int]]:
    """Accumulation windows of the epochs to come, the present one's first: batches of one, epochs that have it."""
    schedulers = instances(trainer, "callbacks.GradientAccumulationScheduler")
    if not schedulers:
        return [(trainer.accumulate_grad_batches, epochs)] if epochs else []
    first = trainer.current_epoch
    return [(schedulers[-1].get_accumulate_grad_batches(epoch), 1) for epoch in range(first, first + epochs)]
