"""torch.compile of a whole step, decision included, without a graph break; and of the decision alone."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from metalr import Guards, MetaLR
from metalr.core import fusion
from metalr.core.graph_checks import check_graph
from tests.conftest import random_policy
from tests.problem import batches, make_model

STEPS = 10

MADE = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
    "sgd_plain": lambda p, lr: torch.optim.SGD(p, lr=lr),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr=lr),
}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def rates_of(name: str, as_lr, backend=None, ordinary: int = 2, **options) -> list[float]:
    """Rates of a run, whose steps are compiled where there is a backend: as one graph, after some ordinary ones."""
    model = make_model()
    optimizer = MADE[name](model.parameters(), as_lr(0.01))
    meta_lr = MetaLR(optimizer, STEPS, random_policy(strength=0.1), **options)
    params = list(model.parameters())
    for p in params:
        p.grad = torch.zeros_like(p)
    update = type(optimizer).step.__wrapped__.__wrapped__  # around it, torch breaks a graph on purpose

    def loss_of(parts, x, y):
        first, second = parts[:2], parts[2:]
        return F.cross_entropy(F.linear(F.relu(F.linear(x, *first)), *second), y)

    @torch.no_grad()
    def whole(x, y):
        grads, loss = torch.func.grad_and_value(loss_of)(params, x, y)
        torch._foreach_copy_([p.grad for p in params], grads)
        meta_lr.step(loss)
        update(optimizer)

    def plain(x, y):
        optimizer.zero_grad(set_to_none=False)
        loss = loss_of(params, x, y)
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()

    compiled = plain if backend is None else torch.compile(whole, backend=backend, fullgraph=ordinary > 0)
    rates = []
    for t, (x, y) in enumerate(batches(STEPS)):
        (plain if t < ordinary else compiled)(x, y)
        rates.append(meta_lr.last_lr[0])
    assert meta_lr.last_step == STEPS
    return rates


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sgd_plain", "adamw", "rmsprop"])  # read off the gradient, the state, measured
def test_a_whole_step_is_one_graph_with_the_hosts_rates(name):
    counter = CompileCounter()
    rates = rates_of(name, torch.tensor, counter)
    assert counter.frame_count == 1
    assert rates == pytest.approx(rates_of(name, float), rel=1e-4)
    assert len(set(rates)) == STEPS


@pytest.mark.slow
def test_a_loop_that_is_compiled_from_its_first_step_breaks_the_graph_there():
    rates = rates_of("sgd", torch.tensor, "eager", ordinary=0)
    assert rates == pytest.approx(rates_of("sgd", float), rel=1e-4)


@pytest.mark.parametrize("reason", ["released", "restore"])
def test_no_graph_is_made_where_there_may_be_none(reason):
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(0.1), momentum=0.9)
    guards = Guards(restore=1 if reason == "restore" else None)
    meta_lr = MetaLR(optimizer, STEPS, random_policy(), guards=guards)
    for _ in range(2):
        meta_lr.step(torch.ones(()))
        optimizer.step()
    if reason == "released":
        meta_lr.release()
    with pytest.raises(Exception, match=reason):
        torch.compile(meta_lr.step, backend="eager", fullgraph=True)(torch.ones(()))


def test_a_graph_is_made_after_two_steps_and_no_sooner():
    check_graph(2, restores=False)
    with pytest.raises(RuntimeError, match="which is the 2. of this MetaLR: take 2 steps before"):
        check_graph(1, restores=False)


@pytest.mark.slow
def test_a_whole_step_in_the_compilers_own_kernels():
    rates = rates_of("adamw", torch.tensor, "inductor")
    assert rates == pytest.approx(rates_of("adamw", float), rel=1e-4)


@pytest.mark.slow
def test_a_fused_decision_has_the_rates_of_the_plain_one():
    fused = rates_of("sgd", torch.tensor, fused=True)
    assert fused == pytest.approx(rates_of("sgd", torch.tensor, fused=False), rel=1e-4)


def test_a_decision_on_the_cpu_is_not_fused_unless_asked_for(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("compiles")

    monkeypatch.setattr(torch, "compile", refuse)
    rates_of("sgd", torch.tensor)
    rates_of("sgd", torch.tensor, fused=False)
    with pytest.raises(AssertionError, match="compiles"):
        rates_of("sgd", torch.tensor, fused=True)


def failing(function, **options):
    def call(*args):
        raise RuntimeError("no compiler here")

    return call


def test_a_decision_that_cannot_be_fused_goes_on_unfused(monkeypatch, caplog):
    monkeypatch.setattr(torch, "compile", failing)
    monkeypatch.setattr(fusion, "can_fuse", lambda device: True)
    with caplog.at_level(logging.WARNING, "metalr"):
        rates = rates_of("sgd", torch.tensor)
    assert [record.message.count("no compiler here") for record in caplog.records] == [1]
    assert rates == rates_of("sgd", torch.tensor, fused=False)


def test_a_decision_that_has_to_be_fused_says_why_it_cannot(monkeypatch):
    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(RuntimeError, match="no compiler here"):
        rates_of("sgd", torch.tensor, fused=True)


def test_only_a_gpu_with_triton_fuses(monkeypatch):
    monkeypatch.setattr(fusion.importlib.util, "find_spec", lambda name: object())
    assert fusion.can_fuse(torch.device("cuda"))
    assert not fusion.can_fuse(torch.device("cpu"))
    monkeypatch.setattr(fusion.importlib.util, "find_spec", lambda name: None)
    assert not fusion.can_fuse(torch.device("cuda"))
