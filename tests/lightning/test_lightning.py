import copy
from statistics import fmean

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, IterableDataset

from metalr import MetaLR, MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Crash, Module, Resumable, StopAt, applied, loader, make_trainer, scaled
from tests.problem import batches, make_model, make_run


def test_it_sets_the_rates_of_the_plain_loop(tmp_path, policy):
    module = Module()
    make_trainer(tmp_path, MetaLRCallback(policy)).fit(module, loader())
    plain = make_run("sgd", policy, total_steps=4 * BATCHES, steps_per_epoch=BATCHES).train(batches(BATCHES) * 4)
    assert applied(module) == [r[0] for r in plain.rates]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 3 * BATCHES),
        ({"max_epochs": 3, "max_steps": 7}, 7),
        ({"max_epochs": -1, "max_steps": 5}, 5),
        ({"max_epochs": 2, "accumulate_grad_batches": 4}, 2 * 2),
        ({"max_epochs": 2, "limit_train_batches": 3}, 2 * 3),
    ],
)
def test_the_horizon_is_the_trainers(tmp_path, policy, options, steps):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, **options).fit(Module(), loader())
    assert callback.controllers[0].total_steps == steps
    assert callback.controllers[0].last_step == steps


class Manual(Module):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()
        return loss


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, BATCHES),
        ({"accumulate_grad_batches": 4}, 2),
        ({"limit_train_batches": 2}, BATCHES),  # the loader shuffles: each epoch has other samples
        ({"limit_train_batches": 0.5}, BATCHES),
        ({"overfit_batches": 2}, None),  # it is meant to memorise
    ],
)
def test_an_epoch_is_a_pass_over_the_data(tmp_path, policy, options, steps):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=1, **options).fit(Module(), loader())
    assert callback.controllers[0].steps_per_epoch == steps


def test_an_epoch_has_the_windows_of_an_accumulation_scheduler(tmp_path, policy):
    """Which sets the Trainer's own when the epoch begins, after the controllers are made."""
    callback = MetaLRCallback(policy)
    schedule = GradientAccumulationScheduler({0: 4})
    make_trainer(tmp_path, callback, schedule, max_epochs=1).fit(Module(), loader())
    assert callback.controllers[0].steps_per_epoch == callback.controllers[0].total_steps == 2


def test_epochs_of_manual_optimization_of_several_loaders_and_of_streams(tmp_path, policy):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=1).fit(Manual(), loader())
    assert callback.controllers[0].steps_per_epoch == BATCHES
    make_trainer(tmp_path, callback, max_epochs=-1, max_steps=3).fit(Module(), DataLoader(Endless(), batch_size=None))
    assert callback.controllers[0].steps_per_epoch is None

    class Two(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[0], batch_idx)

    make_trainer(tmp_path, callback, max_epochs=1).fit(Two(), CombinedLoader([loader(), loader()], "min_size"))
    assert callback.controllers[0].steps_per_epoch == BATCHES


def test_a_horizon_of_ones_own(tmp_path, policy):
    callback = MetaLRCallback(policy, total_steps=50)
    make_trainer(tmp_path, callback, max_epochs=1).fit(Module(), loader())
    assert callback.controllers[0].total_steps == 50


class Endless(IterableDataset):
    def __iter__(self):
        while True:
            yield from batches(BATCHES)


@pytest.mark.parametrize("endless", [True, False])
def test_without_a_horizon_it_is_the_anytime_mode(tmp_path, anytime_policy, endless):
    callback = MetaLRCallback(anytime_policy)
    data = DataLoader(Endless(), batch_size=None) if endless else loader()
    make_trainer(tmp_path, callback, StopAt(8), max_epochs=-1).fit(Module(), data)
    assert callback.controllers[0].total_steps is None
    assert callback.controllers[0].last_step == 8


def test_max_time_is_a_horizon(tmp_path, policy):
    callback = MetaLRCallback(policy)
    trainer = make_trainer(tmp_path, callback, max_epochs=-1, max_time={"seconds": 2})
    trainer.fit(Module(), loader())
    controller = callback.controllers[0]
    assert controller.last_step > 20
    # At the end the estimate is what was run, and the reference has come down with it.
    assert controller.total_steps == pytest.approx(controller.last_step, rel=0.1)


def test_accumulated_losses_are_their_mean_also_in_a_short_window(tmp_path, policy, monkeypatch):
    """Windows of 4 and of 2 batches."""
    batch_losses, decided = [], []

    class Recorder(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            batch_losses.append(float(loss.detach()))
            return loss

    step = MetaLR.step
    monkeypatch.setattr(MetaLR, "step", lambda self, loss: (decided.append(float(loss)), step(self, loss)))
    trainer = make_trainer(tmp_path, MetaLRCallback(policy), max_epochs=1, accumulate_grad_batches=4)
    trainer.fit(Recorder(), loader())
    assert decided == pytest.approx([fmean(batch_losses[:4]), fmean(batch_losses[4:])], rel=1e-6)


@pytest.mark.parametrize("horizon", [True, False])
@pytest.mark.parametrize("step", [1, 8, 17])
def test_a_crashed_fit_goes_on_to_the_last_bit(tmp_path, step, horizon):
    policy = random_policy(anytime=not horizon)
    options = {} if horizon else {"max_epochs": -1}
    stop = [] if horizon else [StopAt(4 * BATCHES)]
    whole = Module()
    make_trainer(tmp_path / "whole", MetaLRCallback(policy), *stop, **options).fit(whole, Resumable())
    checkpoint = ModelCheckpoint(tmp_path / "c", every_n_train_steps=1, save_last=True, save_top_k=0)
    with pytest.raises(RuntimeError, match="crash"):
        make_trainer(tmp_path, MetaLRCallback(policy), checkpoint, Crash(step), *stop, **options).fit(
            Module(), Resumable()
        )
    resumed = Module()
    trainer = make_trainer(tmp_path, MetaLRCallback(policy), *stop, **options)
    trainer.fit(resumed, Resumable(), ckpt_path=tmp_path / "c" / "last.ckpt", weights_only=True)
    assert applied(resumed) == applied(whole)[step:]
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_a_second_fit_plans_for_the_steps_that_remain(tmp_path, policy):
    callback, module = MetaLRCallback(policy), Module()
    trainer = make_trainer(tmp_path, callback, max_epochs=2)
    trainer.fit(module, loader())
    trainer.fit_loop.max_epochs = 5
    trainer.fit(module, loader())
    assert callback.controllers[0].total_steps == 3 * BATCHES
    assert callback.controllers[0].last_step == 3 * BATCHES


def test_two_ranks_set_the_rates_of_one(tmp_path):
    """Two ranks see halves of each batch: gradients and losses are averaged over them."""
    policy = random_policy(strength=0.1)
    alone, together = Module(), Module()
    states = []
    for module, ranks in ((alone, {}), (together, {"strategy": "ddp_fork", "devices": 2})):
        folder = tmp_path / str(len(states))
        trainer = make_trainer(
            folder,
            MetaLRCallback(policy),
            ModelCheckpoint(folder),
            max_epochs=2,
            use_distributed_sampler=False,
            **ranks,
        )
        trainer.fit(module, loader())
        checkpoint = torch.load(next(folder.glob("*.ckpt")), weights_only=True)
        (state,) = checkpoint["callbacks"]["MetaLRCallback"]["controllers"]
        states.append(state)
    assert float(states[0]["log_multiplier"]) == pytest.approx(float(states[1]["log_multiplier"]), abs=1e-4)
    assert torch.allclose(states[0]["feature_state"]["averages"], states[1]["feature_state"]["averages"], atol=1e-4)
    for a, b in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_clipping_comes_after_the_decision(tmp_path, policy):
    """Clipped so hard that nothing moves, the gradients that the policy sees are still the full ones."""
    norms = []

    class Spy(MetaLRCallback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            norms.append(float(sum(p.grad.square().sum() for p in pl_module.parameters()).sqrt()))
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    callback = Spy(policy)
    make_trainer(tmp_path, callback, max_epochs=1, gradient_clip_val=1e-8).fit(Module(), loader())
    assert min(norms) > 1e-3
    log_norm = callback.controllers[0]._decider.feature_state.averages[0, 1]
    assert float(log_norm) == pytest.approx(float(torch.tensor(norms).log().mean()), rel=0.2)


class Gan(L.LightningModule):
    """Two optimizers under manual optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = make_model(0), make_model(1)

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer, model in zip(self.optimizers(), (self.first, self.second), strict=True):
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self):
        first = torch.optim.Adam(self.first.parameters(), lr=1e-2)
        return [first, torch.optim.SGD(self.second.parameters(), lr=0.1, momentum=0.9)], []


def test_several_optimizers_have_a_controller_each(tmp_path, policy):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=2).fit(Gan(), loader())
    first, second = callback.controllers
    assert first.last_step == second.last_step == first.total_steps == 2 * BATCHES
    assert first.log_multiplier != second.log_multiplier


class Shared(Gan):
    """Two optimizers step after one backward pass."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.first(x) + self.second(x), y))
        for optimizer in self.optimizers():
            optimizer.step()


def test_several_optimizers_may_share_a_loss(tmp_path, policy):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=1).fit(Shared(), loader())
    first, second = callback.controllers
    assert first.last_step == second.last_step == BATCHES
    assert torch.equal(first._decider.feature_state.averages[:, 0], second._decider.feature_state.averages[:, 0])


def test_max_steps_counts_every_optimizers_steps(tmp_path, policy):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=9, max_steps=8).fit(Gan(), loader())
    assert [(c.total_steps, c.last_step) for c in callback.controllers] == [(4, 4)] * 2


class Picky(Module):
    def training_step(self, batch, batch_idx):
        return None if batch_idx % 3 == 1 else super().training_step(batch, batch_idx)


def test_a_batch_that_is_left_out_is_no_step(tmp_path, policy):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=1).fit(Picky(), loader())
    assert callback.controllers[0].last_step == 4


def test_the_anytime_policy_can_be_asked_for(tmp_path, anytime_policy):
    callback = MetaLRCallback(anytime_policy)
    make_trainer(tmp_path, callback, max_epochs=1).fit(Module(), loader())
    assert callback.controllers[0].total_steps is None


class Nan(Module):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("nan")


@pytest.mark.parametrize("plugins", [[], ["scaler"]])
def test_a_loss_that_is_nan_at_once_is_refused(tmp_path, policy, plugins):
    made = [scaled(4.0) for _ in plugins]
    with pytest.raises(ValueError, match="loss=nan at the first step"):
        make_trainer(tmp_path, MetaLRCallback(policy), plugins=made).fit(Nan(), loader())


def test_it_logs_the_rate_and_the_decision(tmp_path, policy):
    logger = CSVLogger(tmp_path)
    trainer = make_trainer(tmp_path, MetaLRCallback(policy), max_epochs=2, logger=logger, log_every_n_steps=3)
    module = Module()
    trainer.fit(module, loader())
    text = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert {"metalr/lr", "metalr/log_multiplier", "metalr/change"} <= set(text.splitlines()[0].split(","))
    assert text.count("\n") >= 4


def test_a_scheduler_beside_it_is_refused(tmp_path, policy):
    with pytest.raises(ValueError, match="StepLR from configure_optimizers"):
        make_trainer(tmp_path, MetaLRCallback(policy)).fit(Module(scheduler=True), loader())


def test_a_missing_policy_is_refused_at_once(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        MetaLRCallback(tmp_path / "nowhere.safetensors")


def test_a_loss_that_lightning_did_not_see_is_refused(tmp_path, policy):
    class Hidden(Gan):
        def manual_backward(self, loss, *args, **kwargs):
            loss.backward()

    with pytest.raises(RuntimeError, match=r"self\.manual_backward"):
        make_trainer(tmp_path, MetaLRCallback(policy)).fit(Hidden(), loader())


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_precisions(tmp_path, policy, precision):
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=1, precision=precision).fit(Module(), loader())
    assert callback.controllers[0].last_step == BATCHES


def test_a_gradscaler_changes_nothing(tmp_path):
    """Losses and gradients are seen unscaled."""
    policy = random_policy(strength=0.1)
    seen = []
    for scale in (1.0, 1024.0):
        callback = MetaLRCallback(policy)
        make_trainer(tmp_path, callback, max_epochs=1, plugins=[scaled(scale)]).fit(Module(), loader())
        seen.append(callback.controllers[0]._decider.feature_state.averages[0, :, 0])
    assert torch.allclose(*seen, atol=2e-2)


def test_a_step_that_a_gradscaler_skips_is_no_step(tmp_path, policy):
    """A scale that overflows half precision: the scaler halves it until it does not."""
    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=2, plugins=[scaled(2.0**22)]).fit(Module(), loader())
    controller = callback.controllers[0]
    assert 0 < controller.last_step < 2 * BATCHES
    assert float(controller._decider.feature_state.seen) == controller.last_step  # none was forgotten as not finite


def test_a_copied_callback_is_whole(policy):
    assert copy.deepcopy(MetaLRCallback(policy)).policy is not None


@pytest.mark.parametrize("bad", [0, 0.5, "100", float("nan"), True, [10, 0], np.array([10, 20])])
def test_a_bad_horizon_is_named_before_the_fit(bad, policy):
    with pytest.raises(ValueError, match=r"^total_steps=.*: give the number of optimizer steps"):
        MetaLRCallback(policy, total_steps=bad)


@pytest.mark.parametrize("endless", [-1, float("inf")])
def test_a_horizon_without_an_end_is_the_anytime_mode(tmp_path, endless):
    callback = MetaLRCallback(total_steps=endless)
    make_trainer(tmp_path, callback, max_epochs=1).fit(Module(), loader())
    assert callback.controllers[0].total_steps is None
    assert callback.controllers[0].last_step == BATCHES
