"""One optimizer step is one decision, however often its closure is called."""

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Timer
from torch.utils.data import DataLoader, TensorDataset

from metalr import MetaLR, MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, loader, make_trainer
from tests.lightning.closures import ClosesTwice, ExtraGradient
from tests.problem import make_model
from tests.regimes.optimizers import ClosureSAM


class Made(Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.make = make

    def configure_optimizers(self):
        return self.make(self.parameters(), lr=0.1, momentum=0.9)


class Plain(torch.optim.SGD):
    """SGD as a subclass, whose update is measured as that of the others here is."""


class Manual(Made):
    """Two steps a batch, with a closure each."""

    def __init__(self, make) -> None:
        super().__init__(make)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizer = self.optimizers()

        def closure():
            loss = F.cross_entropy(self.model(x), y)
            optimizer.zero_grad()
            self.manual_backward(loss)
            return loss

        for _ in range(2):
            optimizer.step(closure=closure)


@pytest.mark.parametrize("make", [ClosureSAM, ExtraGradient])
@pytest.mark.parametrize(("kind", "steps"), [(Made, BATCHES), (Manual, 2 * BATCHES)])
def test_a_step_with_several_closure_calls_is_one_decision(tmp_path, make, kind, steps):
    callback = MetaLRCallback(random_policy(strength=0.1))
    make_trainer(tmp_path, callback, max_epochs=2).fit(kind(make), loader())
    (controller,) = callback.controllers
    assert controller.last_step == controller.total_steps == 2 * steps


@pytest.mark.parametrize("kind", [Made, Manual])
def test_a_second_closure_call_changes_no_rate(tmp_path, kind):
    """The first call's loss and gradient are decided on, and the update is the whole step's."""
    rates = []
    for make in (Plain, ClosesTwice):
        seen = Recorder(random_policy(strength=0.1))
        make_trainer(tmp_path, seen, max_epochs=2).fit(kind(make), loader())
        rates.append(seen.rates)
    assert rates[0] == rates[1]


class Linear(Made):
    """Three ordered classes, which no linear model tells apart: the loss has an end above 0."""

    def __init__(self, make) -> None:
        super().__init__(make)
        torch.manual_seed(0)
        self.model = torch.nn.Linear(8, 3)
        self.x = torch.randn(640, 8)
        self.y = (self.x[:, 0] > 0).long() + (self.x[:, 1] > 0).long()

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), 32)

    def final_loss(self) -> float:
        return float(F.cross_entropy(self.model(self.x), self.y).detach())


def test_sharpness_aware_training_learns_as_with_a_constant_rate(tmp_path):
    driven, constant = Linear(ClosureSAM), Linear(ClosureSAM)
    make_trainer(tmp_path, MetaLRCallback(), max_epochs=5).fit(driven)
    make_trainer(tmp_path, Timer(), max_epochs=5).fit(constant)
    assert driven.final_loss() <= 1.1 * constant.final_loss() < 0.7


class FirstAndSecondStep(Manual):
    """Steps its optimizer behind Lightning's back."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        optimizer = self.optimizers(use_pl_optimizer=False)
        self.manual_backward(F.cross_entropy(self.model(x), y))
        torch.optim.SGD.step(optimizer)


def test_an_epoch_without_a_step_that_lightning_sees_is_reported(tmp_path, policy):
    with pytest.warns(UserWarning, match=r"set no rate in epoch 0.*step\(closure\) in place of first_step"):
        make_trainer(tmp_path, MetaLRCallback(policy), max_epochs=1).fit(FirstAndSecondStep(Plain), loader())


def test_a_step_within_a_step_is_one_and_none_is_counted_after_the_release(policy):
    model = make_model()
    optimizer = ClosureSAM(model.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 8)).square().mean()
        loss.backward()
        return loss

    count = MetaLR(optimizer, 10, policy).steps
    for _ in range(3):
        optimizer.step(closure)
    assert count.finished == 3
    count.release()
    optimizer.step(closure)
    assert count.finished == 3
