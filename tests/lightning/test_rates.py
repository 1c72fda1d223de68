"""Rates that others derive or write while a fit goes on: what was asked for relative to the other groups is kept."""

import logging
import warnings

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, LearningRateFinder, ModelCheckpoint

from metalr import MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, Resumable, loader, make_trainer

BASES = (1e-4, 0.1, 10.0)


class Head(Module):
    """Its optimizer begins with the last layer."""

    def __init__(self, lr: float, tensor: bool = False) -> None:
        super().__init__()
        self.lr, self.tensor = lr, tensor
        self.backbone = self.model[0]

    def configure_optimizers(self):
        lr = torch.tensor(self.lr) if self.tensor else self.lr
        return torch.optim.SGD(list(self.model[2].parameters()), lr=lr, momentum=0.9)


class Thaw(BaseFinetuning):
    """Adds the body in epoch 1, and multiplies its rate in epoch 2."""

    def __init__(self, lr: float | None = None, later: float = 1.0) -> None:
        super().__init__()
        self.lr, self.later = lr, later

    def freeze_before_training(self, pl_module) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module, epoch, optimizer) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=self.lr)
        if epoch == 2:
            optimizer.param_groups[1]["lr"] = self.later * float(optimizer.param_groups[1]["lr"])


def ratios(seen: Recorder) -> list[float]:
    """The body's rate over the head's at each step that has both."""
    return [float(body / head) for head, body in (rates for rates in seen.rates if len(rates) == 2)]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("lr", BASES)
def test_finetuning_asks_for_a_tenth_of_the_head_and_has_it(tmp_path, lr, order):
    seen = Recorder(random_policy())
    make_trainer(tmp_path, *(seen, Thaw())[::order], max_epochs=3).fit(Head(lr), Resumable())
    assert ratios(seen) == pytest.approx([0.1] * 2 * BATCHES)


@pytest.mark.parametrize("tensor", [False, True])
def test_finetuning_may_rewrite_a_rate_later_also_a_tensor(tmp_path, tensor):
    seen = Recorder(random_policy())
    make_trainer(tmp_path, seen, Thaw(later=0.5), max_epochs=3).fit(Head(0.1, tensor), Resumable())
    assert ratios(seen) == pytest.approx([0.1] * BATCHES + [0.05] * BATCHES, rel=1e-5)


def test_a_number_in_finetuning_is_an_initial_rate(tmp_path):
    seen = Recorder(random_policy())
    make_trainer(tmp_path, seen, Thaw(lr=0.02), max_epochs=3).fit(Head(0.1), Resumable())
    assert ratios(seen) == pytest.approx([0.2] * 2 * BATCHES)


def test_finetuning_leaves_the_rates_of_others_alone(tmp_path):
    """What is shown to a finetuning callback is not what is applied, nor what others see after it."""

    class Watch(L.Callback):
        rates: list[float] = []  # noqa: RUF012 - of one test

        def on_train_batch_start(self, trainer, *_) -> None:
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    watch, seen = Watch(), Recorder(random_policy())
    make_trainer(tmp_path, seen, Thaw(), watch, max_epochs=3).fit(Head(0.1), Resumable())
    assert watch.rates == [0.1] + [rates[0] for rates in seen.rates[:-1]]
    alone = Recorder(random_policy())
    make_trainer(tmp_path, alone, max_epochs=1).fit(Head(0.1), Resumable())
    assert len(alone.rates) == BATCHES


@pytest.mark.parametrize("lr", BASES)
def test_backbone_finetuning_grows_to_the_heads_rate_and_stays(tmp_path, lr):
    """From 0.1 it is multiplied by 3 each epoch: 0.1, 0.3, 0.9, and then the head's."""
    thaw = BackboneFinetuning(1, lambda epoch: 3.0, backbone_initial_ratio_lr=0.1)
    seen = Recorder(random_policy())
    make_trainer(tmp_path, seen, thaw, max_epochs=6).fit(Head(lr), Resumable())
    wanted = [ratio for ratio in (0.1, 0.3, 0.9, 1.0, 1.0) for _ in range(BATCHES)]
    assert ratios(seen) == pytest.approx(wanted)


def test_finetuning_has_its_hook_back_after_the_fit(tmp_path, policy):
    thaw = Thaw()
    make_trainer(tmp_path, MetaLRCallback(policy), thaw, max_epochs=1).fit(Head(0.1), Resumable())
    assert "on_train_epoch_start" not in vars(thaw)


def test_finetuning_is_resumed_to_the_last_bit(tmp_path):
    """Before the body is added; one that was is left frozen by Lightning when it resumes."""
    step, policy = BATCHES - 2, random_policy(strength=0.1)
    seen, resumed = Recorder(policy), Recorder(policy)
    kept = ModelCheckpoint(tmp_path / "c", every_n_train_steps=step, save_top_k=-1)
    make_trainer(tmp_path, seen, Thaw(later=0.5), kept, max_epochs=3).fit(Head(0.1), Resumable())
    (path,) = (tmp_path / "c").glob(f"*step={step}.ckpt")
    trainer = make_trainer(tmp_path, resumed, Thaw(later=0.5), max_epochs=3)
    trainer.fit(Head(0.1), Resumable(), ckpt_path=path, weights_only=False)
    assert resumed.rates == seen.rates[step:]


class Writes(L.Callback):
    """Changes the rates when a batch starts."""

    def __init__(self, steps: set[int], change) -> None:
        self.steps, self.change = steps, change

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step in self.steps:
            self.change(pl_module, trainer.optimizers[0])


def add_body(module, optimizer) -> None:
    optimizer.add_param_group(
        {"params": list(module.backbone.parameters()), "lr": optimizer.param_groups[0]["lr"] * 0.3}
    )


@pytest.mark.parametrize("lr", BASES)
def test_a_group_that_is_added_at_a_present_rate_keeps_its_ratio(tmp_path, lr):
    seen = Recorder(random_policy())
    make_trainer(tmp_path, seen, Writes({4}, add_body), max_epochs=2).fit(Head(lr), Resumable())
    assert ratios(seen) == pytest.approx([0.3] * (2 * BATCHES - 4))


class Both(Head):
    def configure_optimizers(self):
        lr = torch.tensor(self.lr) if self.tensor else self.lr
        groups = [{"params": list(self.model[i].parameters()), "lr": lr} for i in (2, 0)]
        return torch.optim.SGD(groups, momentum=0.9)


@pytest.mark.parametrize("tensor", [False, True])
def test_a_rate_that_is_halved_on_the_way_stays_halved(tmp_path, tensor):
    def halve(module, optimizer):
        group = optimizer.param_groups[1]
        if tensor:
            group["lr"] = group["lr"].clone().mul_(0.5)
        else:
            group["lr"] *= 0.5

    seen = Recorder(random_policy())
    make_trainer(tmp_path, seen, Writes({4, 8}, halve), max_epochs=2).fit(Both(0.1, tensor), Resumable())
    wanted = [1.0] * 4 + [0.5] * 4 + [0.25] * 4
    assert ratios(seen) == pytest.approx(wanted, rel=1e-5)


def test_a_rate_that_is_set_goes_on_from_there(tmp_path, caplog):
    """A policy that asks for no change leaves the reference alone: from 0.02 it falls as the cosine does."""
    policy = random_policy(strength=0.0)
    seen, plain = Recorder(policy), Recorder(policy)

    def put(module, optimizer):
        optimizer.param_groups[0]["lr"] = 0.02

    with caplog.at_level(logging.INFO):
        make_trainer(tmp_path, seen, Writes({6}, put), max_epochs=2).fit(Module(), loader())
    make_trainer(tmp_path, plain, max_epochs=2).fit(Module(), loader())
    before = plain.rates[5][0]
    wanted = [rate * (0.02 / before if step >= 6 else 1.0) for step, (rate,) in enumerate(plain.rates)]
    assert [rate for (rate,) in seen.rates] == pytest.approx(wanted)
    assert "was changed externally to 0.02 before step 6; using it from now on" in caplog.text


def test_a_rate_that_is_set_at_every_step_is_reported(tmp_path, policy):
    def warm_up(module, optimizer):
        optimizer.param_groups[0]["lr"] = 0.1 * (module.global_step + 1) / 12

    with pytest.warns(UserWarning, match="is set at every step by something beside MetaLR"):
        make_trainer(tmp_path, MetaLRCallback(policy), Writes(set(range(12)), warm_up), max_epochs=2).fit(
            Module(), loader()
        )


def test_rates_that_nobody_touches_are_not_reported(tmp_path, policy, caplog):
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.filterwarnings("error", message=".*is set at every step.*")
        make_trainer(tmp_path, MetaLRCallback(policy), max_epochs=2).fit(Both(0.1, tensor=True), loader())
    assert "changed externally" not in caplog.text


class FindEachEpoch(LearningRateFinder):
    """As in Lightning's documentation: a search at the start of some epochs too."""

    def __init__(self, epochs: set[int]) -> None:
        super().__init__(num_training_steps=20, min_lr=1e-3, max_lr=0.03, early_stop_threshold=None)
        self.epochs = epochs
        self.found: dict[int, float] = {}

    def on_fit_start(self, trainer, pl_module) -> None:
        """No search before the first epoch but one that was asked for."""

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        if trainer.current_epoch in self.epochs:
            self.lr_find(trainer, pl_module)
            self.found[trainer.current_epoch] = trainer.optimizers[0].param_groups[0]["lr"]


class Findable(Module):
    def __init__(self) -> None:
        super().__init__()
        self.lr = 0.1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("order", [1, -1])
def test_a_found_rate_is_applied(tmp_path, epoch, order):
    """Neither the reference, nearly flat there, nor a policy that asks for nothing moves it far within a step."""
    finder, seen = FindEachEpoch({epoch}), Recorder(random_policy(strength=0.0))
    make_trainer(tmp_path, *(finder, seen)[::order], max_epochs=20).fit(Findable(), loader())
    assert finder.found[epoch] != pytest.approx(0.1, rel=0.2)
    assert seen.rates[epoch * BATCHES] == pytest.approx([finder.found[epoch]], rel=0.02)


def test_a_rate_found_before_a_second_fit_begins_anew(tmp_path):
    """The search stores and loads a checkpoint, which must not bring the first fit's state back."""
    callback = MetaLRCallback(random_policy())
    trainer = make_trainer(
        tmp_path, LearningRateFinder(num_training_steps=20, min_lr=1e-3, max_lr=0.5), callback, max_epochs=1
    )
    module = Findable()
    trainer.fit(module, loader())
    assert callback.controllers[0].last_step == BATCHES
    trainer.fit_loop.max_epochs = 3
    trainer.fit(module, loader())
    assert callback.controllers[0].last_step == callback.controllers[0].total_steps == 2 * BATCHES


@pytest.mark.parametrize("returned", [None, []])
def test_a_module_without_an_optimizer_is_refused_by_what_it_lacks(tmp_path, policy, returned):
    class Without(Module):
        def configure_optimizers(self):
            return returned

    module = Without()
    module.automatic_optimization = returned is None
    with pytest.raises(ValueError, match="configure_optimizers returned no optimizer"):
        make_trainer(tmp_path, MetaLRCallback(policy)).fit(module, loader())
