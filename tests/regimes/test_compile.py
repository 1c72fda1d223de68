"""torch.compile: of the model, of the optimizer's step, and both. Dynamo's guards are what matters: no code is made."""

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from metalr import MetaLR, MetaLRCallback
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, loader, make_trainer
from tests.problem import batches, make_model


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


MADE = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "sgd_plain": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr),
}


def train(
    name: str, lr, compiled: bool, assign: bool = False, steps: int = 8
) -> tuple[list[float], list[torch.Tensor], int]:
    """Rates, weights, and the graphs that dynamo compiled after the third step."""
    model, counter = make_model(), CompileCounter()
    optimizer = MADE[name](model.parameters(), lr)
    meta_lr = MetaLR(optimizer, steps, random_policy(strength=0.1))
    forward = torch.compile(model, backend=counter) if compiled else model
    step = torch.compile(optimizer.step, backend=counter) if compiled else optimizer.step
    rates, early = [], 0
    for t, (x, y) in enumerate(batches(steps)):
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(x), y)
        loss.backward()
        meta_lr.step(loss)
        if assign and t > 2:
            optimizer.param_groups[0]["lr"] = meta_lr.last_lr[0]
        step()
        rates.append(meta_lr.last_lr[0])
        early = counter.frame_count if t == 2 else early  # the optimizer's state comes with its first step
    return rates, [p.detach().clone() for p in model.parameters()], counter.frame_count - early


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_tensor_rate_is_filled_without_recompilation(name):
    rates, weights, recompiled = train(name, torch.tensor(0.01), compiled=True)
    assert recompiled == 0
    plain_rates, plain_weights, _ = train(name, torch.tensor(0.01), compiled=False)
    assert rates == pytest.approx(plain_rates, rel=1e-4)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(weights, plain_weights, strict=True))


def test_a_number_in_its_place_would_recompile():
    """So the test above can fail."""
    _, _, recompiled = train("sgd", torch.tensor(0.01), compiled=True, assign=True)
    assert recompiled > 0


@pytest.mark.parametrize("name", ["sgd", "rmsprop"])
def test_a_compiled_model_has_the_rates_of_the_plain_one(name):
    rates = []
    for wrap in (lambda m: m, lambda m: torch.compile(m, backend="eager")):
        model = make_model()
        optimizer = MADE[name](model.parameters(), 0.01)
        meta_lr, forward = MetaLR(optimizer, 8, random_policy()), wrap(model)
        for x, y in batches(8):
            optimizer.zero_grad()
            loss = F.cross_entropy(forward(x), y)
            loss.backward()
            meta_lr.step(loss)
            optimizer.step()
        rates.append(meta_lr.last_lr)
    assert rates[0] == pytest.approx(rates[1], rel=1e-4)


def test_a_compiled_module_in_a_fit(tmp_path):
    policy = random_policy(strength=0.1)
    rates = []
    for wrap in (lambda m: m, lambda m: torch.compile(m, backend="eager")):
        seen = Recorder(policy)
        make_trainer(tmp_path, seen, max_epochs=2).fit(wrap(Module()), loader())
        rates.append([rate for (rate,) in seen.rates])
    assert len(rates[0]) == 2 * BATCHES
    assert rates[0] == pytest.approx(rates[1], rel=1e-4)


def test_a_tensor_rate_in_a_fit_is_kept(tmp_path, policy):
    class Tensored(Module):
        def configure_optimizers(self):
            self.held = torch.tensor(0.1)
            return torch.optim.Adam(self.parameters(), lr=self.held)

    module, callback = Tensored(), MetaLRCallback(policy)
    make_trainer(tmp_path, callback, max_epochs=1).fit(module, loader())
    assert module.trainer.optimizers[0].param_groups[0]["lr"] is module.held
    assert float(module.held) == pytest.approx(callback.controllers[0].last_lr[0])
