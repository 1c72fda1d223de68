"""Fits that are resumed with another horizon, and what the Trainer can say of its end."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

from metalr import MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, Resumable, StopAt, loader, make_trainer
from tests.problem import batches, make_run

STEP = 8


def checkpoint_at(folder, policy, module=None, **options):
    """Trains, and gives the checkpoint of step 8."""
    kept = ModelCheckpoint(folder, every_n_train_steps=STEP, save_top_k=-1)
    callback = MetaLRCallback(policy)
    make_trainer(folder, callback, kept, StopAt(STEP), **options).fit(module or Module(), Resumable())
    (path,) = folder.glob(f"*step={STEP}.ckpt")
    return path


@pytest.mark.parametrize("epochs", [2, 6])
def test_a_fit_resumed_with_another_horizon_is_a_loop_whose_horizon_moved(tmp_path, policy, epochs):
    """Planned for 4 epochs, then resumed for 2 or 6: the state is kept, and the reference follows the new end."""
    path = checkpoint_at(tmp_path / "c", policy, max_epochs=4)
    seen = Recorder(policy)
    trainer = make_trainer(tmp_path, seen, max_epochs=epochs)
    trainer.fit(Module(), Resumable(), ckpt_path=path, weights_only=True)
    plain = make_run("sgd", policy, 4 * BATCHES, steps_per_epoch=BATCHES).train((batches(BATCHES) * 2)[:STEP])
    plain.meta_lr.total_steps = epochs * BATCHES
    plain.train((batches(BATCHES) * epochs)[STEP:])
    assert seen.controllers[0].total_steps == epochs * BATCHES
    assert seen.rates == plain.rates[STEP:]


def test_a_fit_is_not_resumed_in_the_other_mode(tmp_path):
    """A known horizon and none have a policy each."""
    known, anytime = random_policy(), random_policy(anytime=True)
    path = checkpoint_at(tmp_path / "c", known, max_epochs=4)
    trainer = make_trainer(tmp_path, MetaLRCallback(anytime), max_epochs=-1)
    with pytest.raises(ValueError, match="another policy"):
        trainer.fit(Module(), Resumable(), ckpt_path=path, weights_only=True)


class Clock:
    """What a Timer takes for the time, which passes as a test has it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Passes(L.Callback):
    """Lets each batch take so many seconds."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def on_train_batch_start(self, *_) -> None:
        self.clock.now += self.seconds


class TimedHorizons(Recorder):
    """Notes the horizon of every decision."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        vars(self).setdefault("horizons", []).append(self.controllers[0].total_steps)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time", clock)
    return clock


def timed(folder, policy, clock, seconds, *callbacks, path=None, **options):
    seen = TimedHorizons(policy)
    options = {"max_epochs": -1, "max_time": {"seconds": 60}} | options
    trainer = make_trainer(folder, seen, Passes(clock, seconds), *callbacks, **options)
    trainer.fit(Module(), Resumable(), ckpt_path=path, weights_only=True)
    return seen


def test_max_time_at_a_steady_pace_is_the_steps_that_it_has(tmp_path, policy, clock):
    """60 seconds, of 1 and of 2 a step."""
    assert timed(tmp_path, policy, clock, 1.0).horizons == [60] * 60
    assert timed(tmp_path, policy, clock, 2.0).horizons == [30] * 30


def test_max_time_and_max_steps_end_a_fit_by_what_comes_first(tmp_path, policy, clock):
    assert timed(tmp_path, policy, clock, 1.0, max_steps=20).horizons == [20] * 20
    assert timed(tmp_path, policy, clock, 1.0, max_steps=100).horizons == [60] * 60


@pytest.mark.parametrize(("seconds", "steps"), [(1.0, 60), (2.0, STEP + 26), (0.5, STEP + 104)])
def test_a_fit_with_max_time_is_resumed_with_the_time_that_is_left(tmp_path, policy, clock, seconds, steps):
    """8 seconds were for 8 steps; 52 are left, for steps that now take 1, 2 or half a second (another batch size)."""
    kept = ModelCheckpoint(tmp_path / "c", every_n_train_steps=STEP, save_top_k=-1)
    timed(tmp_path, policy, clock, 1.0, kept, StopAt(STEP))
    (path,) = (tmp_path / "c").glob(f"*step={STEP}.ckpt")
    seen = timed(tmp_path, policy, clock, seconds, path=path)
    assert seen.controllers[0].last_step == steps
    assert seen.horizons[1:] == [steps] * (steps - STEP - 1)  # the first step still has the pace of the part before


@pytest.mark.parametrize("endless", [False, True])
def test_max_epochs_of_minus_one_resumes_in_the_anytime_mode(tmp_path, anytime_policy, endless):
    """With a number of steps it has a horizon, without one it has none."""
    options = {"max_epochs": -1} | ({} if endless else {"max_steps": 3 * BATCHES})
    policy = anytime_policy if endless else random_policy()
    whole, resumed = Recorder(policy), Recorder(policy)
    stop = [StopAt(3 * BATCHES)] if endless else []
    make_trainer(tmp_path, whole, *stop, **options).fit(Module(), Resumable())
    path = checkpoint_at(tmp_path / "c", policy, **options)
    trainer = make_trainer(tmp_path, resumed, *stop, **options)
    trainer.fit(Module(), Resumable(), ckpt_path=path, weights_only=True)
    assert (resumed.controllers[0].total_steps is None) == endless
    assert resumed.rates == whole.rates[STEP:]


@pytest.mark.parametrize(("options", "steps"), [({"max_epochs": 3}, 3 + 2 + 2), ({"max_epochs": 3, "max_steps": 4}, 4)])
def test_windows_may_change_by_epoch(tmp_path, policy, options, steps):
    """6 batches an epoch in windows of 2, then of 3 (of 4 in the last, which leaves a short one)."""
    callback = MetaLRCallback(policy)
    windows = GradientAccumulationScheduler({0: 2, 1: 3, 2: 4})
    make_trainer(tmp_path, callback, windows, **options).fit(Module(), loader())
    assert callback.controllers[0].total_steps == callback.controllers[0].last_step == steps


def test_a_second_fit_begins_anew(tmp_path, policy):
    """Lightning makes new optimizers; the rates are those of a first fit of the steps that remain."""
    module, seen = Module(), Recorder(policy)
    trainer = make_trainer(tmp_path, seen, max_epochs=2)
    trainer.fit(module, loader())
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    trainer.fit_loop.max_epochs = 5
    trainer.fit(module, loader())
    other, fresh = Recorder(policy), Module()
    fresh.load_state_dict(weights)
    make_trainer(tmp_path, other, max_epochs=3).fit(fresh, loader())
    assert seen.rates[2 * BATCHES :] == other.rates
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), fresh.parameters(), strict=True))
