"""A scheduler's shape: the plain loop's rates, with the loss of the step or of the one before."""

import copy

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint

from metalr import MetaLR, MetaLRCallback
from metalr.integrations.scheduler import MetaLRScheduler
from tests.conftest import random_policy
from tests.fit import BATCHES, Crash, Module, Resumable, applied, loader, make_trainer
from tests.problem import OPTIMIZERS, batches, make_model, make_run

STEPS = 30


class Framework:
    """A loop that uses optimizer and scheduler alone; `given_by` is the call that gets the loss, if any."""

    def __init__(self, optimizer: str, policy, given_by: str, total_steps: int | None = STEPS, lr: float | None = None):
        self.model = make_model()
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        if lr is not None:
            self.optimizer.param_groups[0]["lr"] = lr
        self.scheduler = MetaLRScheduler(self.optimizer, total_steps, policy)
        self.given_by = given_by
        self.rates: list[float] = []

    def train(self, data) -> "Framework":
        for x, y in data:
            if self.given_by == "closure":
                loss = self.optimizer.step(lambda x=x, y=y: self.backward(x, y))
            else:
                loss = self.backward(x, y)
                if self.given_by == "observe":
                    self.scheduler.observe(loss)
                self.optimizer.step()
            self.rates.append(self.optimizer.param_groups[0]["lr"])
            assert self.scheduler.get_last_lr() == self.rates[-1:]
            if self.given_by == "step":
                self.scheduler.step(loss)
            else:
                self.scheduler.step()
        return self

    def backward(self, x, y):
        loss = F.cross_entropy(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        return loss

    def state(self) -> dict:
        parts = (self.model, self.optimizer, self.scheduler)
        return copy.deepcopy([part.state_dict() for part in parts])

    def load(self, states) -> "Framework":
        for part, state in zip((self.model, self.optimizer, self.scheduler), states, strict=True):
            part.load_state_dict(state)
        return self


@pytest.mark.parametrize("given_by", ["observe", "closure"])
@pytest.mark.parametrize("optimizer", ["sgd", "sgd_plain", "adamw", "rmsprop"])
def test_with_the_steps_loss_the_rates_are_the_plain_loops(optimizer, given_by, policy):
    plain = make_run(optimizer, policy, STEPS).train(batches(STEPS))
    framework = Framework(optimizer, policy, given_by).train(batches(STEPS))
    assert framework.rates == [rate for (rate,) in plain.rates]


def test_a_loss_given_after_the_step_lags_one_step(policy):
    """The first step is decided for itself; then the decisions of a plain loop that is given the last step's loss."""
    framework = Framework("sgd", policy, "step").train(batches(STEPS))
    model = make_model()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    first = MetaLR(optimizer, STEPS, policy)
    rates, last = [], None
    for x, y in batches(STEPS):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        if last is None:
            first.step(loss)  # the value of a loss makes no difference to a first decision
            optimizer.param_groups[0]["lr"] = 0.1
            first, meta_lr = first.last_lr[0], MetaLR(optimizer, STEPS, policy)
            optimizer.param_groups[0]["lr"] = first
        else:
            meta_lr.step(last)
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        last = loss.detach()
    assert framework.rates == rates
    assert rates[0] != 0.1


def test_a_rate_that_is_far_off_is_put_right_in_either_way():
    """The shipped policy, from a rate a thousand times too high: the lag costs no divergence."""
    for given_by in ("observe", "step"):
        framework = Framework("sgd", "default", given_by, 60, lr=100.0).train(batches(60))
        x, y = batches(1)[0]
        assert F.cross_entropy(framework.model(x), y).item() < 1.4  # log(4) = 1.39 is what chance gives
        assert framework.rates[20] < 5.0


def test_losses_before_one_step_are_one_mean(policy):
    """Two halves of a batch, accumulated, are the batch."""
    plain = make_run("sgd", policy, STEPS).train(batches(STEPS))
    framework = Framework("sgd", policy, "observe")
    for x, y in batches(STEPS):
        framework.optimizer.zero_grad()
        for part in (slice(0, 8), slice(8, 16)):
            loss = F.cross_entropy(framework.model(x[part]), y[part])
            framework.scheduler.observe(loss)
            (loss / 2).backward()
        framework.optimizer.step()
        framework.rates.append(framework.optimizer.param_groups[0]["lr"])
    assert framework.rates == pytest.approx([rate for (rate,) in plain.rates], rel=1e-3)


def test_a_loss_that_nobody_gives_is_asked_for(policy):
    with pytest.raises(RuntimeError, match=r"given no loss: call scheduler.observe\(loss\) before optimizer.step"):
        Framework("sgd", policy, "never").train(batches(2))


@pytest.mark.parametrize("given_by", ["observe", "step"])
@pytest.mark.parametrize("stop", [0, 1, 17])
def test_a_resumed_loop_has_the_same_rates_to_the_last_bit(stop, given_by, anytime_policy, tmp_path):
    data = batches(STEPS)
    whole = Framework("rmsprop", anytime_policy, given_by, None).train(data)
    half = Framework("rmsprop", anytime_policy, given_by, None).train(data[:stop])
    torch.save(half.state(), tmp_path / "state.pt")
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Framework("rmsprop", anytime_policy, given_by, None).load(states).train(data[stop:])
    assert half.rates + resumed.rates == whole.rates


class Scheduled(Module):
    """It comes out of configure_optimizers, and nothing else is said."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), **self.options)
        # trainer.estimated_stepping_batches would set the loader up before Lightning restores its place.
        return [optimizer], [MetaLRScheduler(optimizer, 4 * BATCHES, random_policy(), steps_per_epoch=BATCHES)]


def fit(folder, module, *callbacks, ckpt_path=None, **options) -> Module:
    trainer = make_trainer(folder, *callbacks, **options)
    trainer.fit(module, Resumable(), ckpt_path=ckpt_path)
    return module


def test_out_of_configure_optimizers_the_rates_are_the_callbacks(tmp_path):
    module = fit(tmp_path, Scheduled(), L.Callback())
    beside = fit(tmp_path, Module(), MetaLRCallback(random_policy()))
    assert applied(module) == applied(beside)
    assert len(applied(module)) == 4 * BATCHES


def test_out_of_configure_optimizers_a_fit_is_resumed_to_the_last_bit(tmp_path):
    whole = fit(tmp_path / "whole", Scheduled(), L.Callback())
    checkpoint = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_last=True, save_top_k=0)
    with pytest.raises(RuntimeError, match="crash"):
        fit(tmp_path, Scheduled(), Crash(BATCHES + 2), checkpoint)
    resumed = fit(tmp_path, Scheduled(), L.Callback(), ckpt_path=tmp_path / "last.ckpt")
    assert applied(resumed) == applied(whole)[BATCHES + 2 :]


def test_as_a_plateaus_scheduler_it_is_given_what_is_monitored(tmp_path):
    """Lightning calls scheduler.step(metric): that loss is a step old, and the closure's own is not asked for."""

    class Monitored(Scheduled):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            (optimizer,), (scheduler,) = super().configure_optimizers()
            config = {"scheduler": scheduler, "interval": "step", "monitor": "train_loss", "reduce_on_plateau": True}
            return {"optimizer": optimizer, "lr_scheduler": config}

    module = Monitored()
    make_trainer(tmp_path, L.Callback()).fit(module, loader())
    seen = applied(module)
    assert len(set(seen)) == len(seen) == 4 * BATCHES
