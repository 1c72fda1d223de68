"""Every optimizer of torch, and some of others."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import Adafactor as HubAdafactor

from metalr import MetaLR, MetaLRCallback
from metalr.core.direction import direction_of
from metalr.core.sample import ParameterSample
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, loader, make_trainer
from tests.problem import batches, make_model
from tests.regimes.optimizers import OTHERS, STEP_FINDERS, TORCH

ALL = TORCH | OTHERS
KNOWN = {*TORCH, "LBFGS", "Muon", "SparseAdam", "SGD", "Optimizer"}


def test_no_optimizer_of_torch_is_left_out():
    """A new one in torch has to be tried here."""
    optimizers = {
        k for k, v in vars(torch.optim).items() if isinstance(v, type) and issubclass(v, torch.optim.Optimizer)
    }
    assert optimizers <= KNOWN


def train(model, optimizers, policy, steps: int = 20) -> list[list[float]]:
    metas, rates = [MetaLR(optimizer, steps, policy) for optimizer in optimizers], []
    for x, y in batches(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        for meta_lr, optimizer in zip(metas, optimizers, strict=True):
            meta_lr.step(loss)
            optimizer.step()
        rates.append([meta_lr.last_lr[0] for meta_lr in metas])
    assert all(float(torch.as_tensor(meta_lr._decider.feature_state.seen)) == steps for meta_lr in metas)
    return rates


@pytest.mark.parametrize("name", ALL)
def test_it_is_driven_at_the_rates_it_is_given(name):
    """And no step's signals were out of range."""
    model = make_model()
    optimizer = ALL[name](model.parameters())
    rates = [rate for (rate,) in train(model, [optimizer], random_policy(strength=0.2))]
    assert all(0.0 < rate < math.inf for rate in rates)
    assert len(set(rates)) == len(rates)


@pytest.mark.parametrize("name", ALL)
def test_the_direction_is_the_parameters_change_for_a_unit_rate(name):
    model = make_model().double()
    optimizer = ALL[name](model.parameters())
    direction, sample = direction_of(optimizer), ParameterSample(optimizer)
    assert direction.is_sgd == (name == "SGD")
    decay = optimizer.param_groups[0].get("weight_decay", 0.0) if name == "AdamW" else 0.0
    for x, y in batches(4):
        optimizer.zero_grad()
        F.cross_entropy(model(x.double()), y).backward()
        with torch.no_grad():
            rows = direction.gather(0, sample.groups[0])
            before = rows[1].clone()
            direction.remember([rows])
        optimizer.step()
        with torch.no_grad():
            rows = direction.gather(0, sample.groups[0])
        change = before - rows[1]
        lr = float(optimizer.param_groups[0]["lr"])
        expected = change / lr - decay * before  # decoupled decay is no part of Adam's direction
        assert torch.allclose(direction.read(0, rows).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
def test_muon_for_matrices_beside_adamw_for_the_rest(policy):
    """Muon takes matrices only: two optimizers, one MetaLR each."""
    model = make_model()
    matrices = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2]
    rates = train(model, [torch.optim.Muon(matrices, lr=1e-2), torch.optim.AdamW(rest, lr=1e-2)], policy)
    assert len(rates) == 20
    assert rates[-1][0] != rates[-1][1]


def test_a_wrapped_optimizer_in_a_fit(tmp_path, policy):
    """One with an `.optimizer` of its own is not taken for Lightning's wrapper."""

    class Wrapped(Module):
        def configure_optimizers(self):
            return OTHERS["Lookahead"](self.parameters())

    callback = MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=1).fit(Wrapped(), loader())
    assert callback.controllers[0].last_step == BATCHES


@pytest.mark.parametrize("name", STEP_FINDERS)
def test_what_finds_its_own_step_is_refused(name, policy):
    with pytest.raises(ValueError, match="use it without MetaLR") as refusal:
        MetaLR(STEP_FINDERS[name](make_model().parameters()), 10, policy)
    assert "\n" not in str(refusal.value)


def test_it_is_refused_by_its_kind_not_by_its_class(policy):
    """An optimizer of nobody's package, that keeps an estimate `d` of its step in the group."""

    class Own(torch.optim.SGD):
        def __init__(self, params) -> None:
            super().__init__(params, lr=1.0)
            self.param_groups[0]["d"] = 1e-6

    with pytest.raises(ValueError, match=r"optimizer is Own, which estimates its own step size \(group\['d'\]\)"):
        MetaLR(Own(make_model().parameters()), 10, policy)


@pytest.mark.parametrize("key", ["d", "rbar", "reps_rel"])
def test_a_step_finder_inside_another_optimizer_is_refused(key, policy):
    """It has groups of its own, beside those of the one around it."""

    class Around(torch.optim.SGD):
        def __init__(self, params) -> None:
            super().__init__(params, lr=1.0)
            self.base = torch.optim.SGD([{"params": self.param_groups[0]["params"], key: 1e-6}], lr=1.0)

    with pytest.raises(ValueError, match=rf"(finds|estimates).*group\['{key}'\].*use it without MetaLR"):
        MetaLR(Around(make_model().parameters()), 10, policy)


def test_an_estimate_that_is_kept_from_the_first_step_on_is_refused_at_the_second(policy):
    class Own(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["rbar"] = 1e-6
            return super().step(closure)

    model = make_model()
    optimizer = Own(model.parameters(), lr=0.1)
    meta_lr = MetaLR(optimizer, 10, policy)
    (x, y) = next(iter(batches(1)))
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    meta_lr.step(loss)
    optimizer.step()
    with pytest.raises(ValueError, match="finds its own step size"):
        meta_lr.step(loss)


@pytest.mark.parametrize("clears", [True, False])
def test_updates_inside_backward_are_refused(clears, policy):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watched = optimizer if not clears else torch.optim.SGD(model.parameters(), lr=0.1)  # or one that is never stepped
    meta_lr = MetaLR(watched, 10, policy)

    def hook(_):
        optimizer.step()
        optimizer.zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(hook)
    x, y = batches(1)[0]

    def train():
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        meta_lr.step(loss)

    with pytest.raises(RuntimeError, match=r"inside backward\(\).*call optimizer.step\(\) after loss.backward\(\)"):
        train()


def test_torchs_own_way_of_that_is_refused(policy):
    from torch.distributed.optim import _apply_optimizer_in_backward

    model = make_model()
    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.1})
    with pytest.raises(ValueError, match=r"stepped inside backward\(\)"):
        MetaLR(torch.optim.SGD(model.parameters(), lr=0.1), 10, policy)


def test_lbfgs_in_a_fit_is_refused(tmp_path, policy):
    class Searching(Module):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ValueError, match="LBFGS, which searches for its own step size"):
        make_trainer(tmp_path, MetaLRCallback(policy)).fit(Searching(), loader())


def test_an_optimizer_that_sets_its_own_rate_is_refused(policy):
    optimizer = HubAdafactor(make_model().parameters())
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['lr'\]=None: .*relative_step=False"):
        MetaLR(optimizer, 10, policy)


@pytest.mark.parametrize("name", ["RMSprop", "Adafactor", "Lion"])
def test_the_unit_of_the_loss_is_unknown_to_the_others_too(name):
    def rates(factor):
        model = make_model().double()
        optimizer = ALL[name](model.parameters())
        meta_lr = MetaLR(optimizer, 12, random_policy(strength=0.1))
        for x, y in batches(12):
            optimizer.zero_grad()
            loss = factor * F.cross_entropy(model(x.double()), y)
            loss.backward()
            meta_lr.step(loss)
            optimizer.step()
            yield meta_lr.last_lr[0]

    assert list(rates(64.0)) == pytest.approx(list(rates(1.0)), rel=0.02)
