"""The clock and the memory of a run whose rates are tensors: the host's numbers, in place, graph or no graph."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr import MetaLR
from metalr.core.device_clock import DeviceClock
from metalr.core.update_rule import clock_row
from tests.conftest import random_policy
from tests.core.graphs import Graph
from tests.in_place import InPlaceTraining
from tests.problem import batches, make_model

CPU = torch.device("cpu")
STEPS = 14


class SignSGD(torch.optim.Optimizer):
    """Bernstein et al. 2018: an optimizer whose direction MetaLR does not know, and measures."""

    def __init__(self, params, lr) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad.sign())


MADE = {  # fused ones of torch's read a rate where it lies, and count their steps in tensors
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, fused=True),
    "sgd_plain": lambda p, lr: torch.optim.SGD(p, lr=lr, weight_decay=1e-2, fused=True),
    "sgd_nesterov": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True, fused=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, fused=True),
    "sign": SignSGD,
}


class Training(InPlaceTraining):
    """A training loop with rates that are tensors, or floats."""

    def __init__(self, name: str, as_lr=torch.tensor, total_steps: int | None = 40, **options) -> None:
        model = make_model()
        optimizer = MADE[name](model.parameters(), as_lr(0.01))
        policy = random_policy(strength=0.1, anytime=total_steps is None)
        meta_lr = MetaLR(optimizer, total_steps, policy, **options)
        x, y = batches(1)[0]
        super().__init__(model, optimizer, meta_lr, (x.clone(), y.clone()))

    def captured(self, batch, monkeypatch) -> Graph:
        self.load(batch)
        with Graph(monkeypatch) as graph:
            self.step()
        self.rates.append(self.meta_lr.last_lr[0])
        return graph


@given(step=st.integers(0, 10**6), total=st.one_of(st.none(), st.integers(1, 10**6)))
def test_the_clock_on_a_device_is_the_hosts(step, total):
    clock = DeviceClock(CPU, total)
    clock.set_step(step)
    row = torch.tensor(clock_row(step, total), dtype=torch.float32)
    assert torch.allclose(torch.cat(clock.now()), row, rtol=1e-6, atol=1e-6)


def test_the_clock_has_the_numbers_of_a_run_of_200_steps():
    """Worked out by hand, at t = 100: half way along the cosine; a span of 200."""
    clock = DeviceClock(CPU, 200)
    clock.set_step(100)
    half = torch.tensor(0.5005).log()
    expected = torch.tensor([0.0, 4.54e-5, float(half), 0.2, 0.2, 4.0, 10.0, 40.0])
    assert torch.allclose(torch.cat(clock.now()), expected, rtol=1e-4)


@pytest.mark.parametrize("name", MADE)
def test_a_graph_that_is_replayed_has_the_rates_of_the_host(name, monkeypatch):
    data = batches(STEPS)
    by_host = Training(name, as_lr=float).train(data)
    run = Training(name)
    run.train(data[:3])
    graph = run.captured(data[3], monkeypatch)
    run.train(data[4:], graph.replay)
    assert run.rates == pytest.approx(by_host, rel=1e-4)
    assert len(set(run.rates)) == STEPS
    assert run.meta_lr.last_step == run.meta_lr.state_dict()["step"] == STEPS


def test_a_graph_without_a_horizon(monkeypatch):
    data = batches(STEPS)
    by_host = Training("adamw", as_lr=float, total_steps=None).train(data)
    run = Training("adamw", total_steps=None)
    run.train(data[:3])
    run.train(data[4:], run.captured(data[3], monkeypatch).replay)
    assert run.rates == pytest.approx(by_host, rel=1e-4)


def test_a_clock_that_the_host_sends_would_be_seen():
    """So the tests above can fail: the step's number of the capture, again and again."""
    clock = DeviceClock(CPU, 40)
    clock.set_step(3)
    assert not torch.allclose(torch.cat(clock.now()), torch.tensor(clock_row(4, 40)), rtol=1e-3)


def test_ordinary_steps_and_replayed_ones_take_turns(monkeypatch):
    data = batches(STEPS)
    whole = Training("sgd").train(data)
    run = Training("sgd")
    run.train(data[:3])
    graph = run.captured(data[3], monkeypatch)
    run.train(data[4:6], graph.replay)
    run.train(data[6:8])
    run.optimizer.zero_grad(set_to_none=True)
    run.train(data[8:], graph.replay)
    assert run.rates == pytest.approx(whole, rel=1e-5)


def test_what_is_read_after_a_replay_is_of_that_step(monkeypatch):
    data = batches(6)
    plain, run = Training("sgd"), Training("sgd")
    plain.train(data)
    run.train(data[:3])
    run.train(data[4:], run.captured(data[3], monkeypatch).replay)
    ours, theirs = run.meta_lr.explain(), plain.meta_lr.explain()
    assert ours.step == theirs.step == 5
    assert ours.features["loss_trend_fast"].value == pytest.approx(theirs.features["loss_trend_fast"].value, abs=1e-4)
    assert run.meta_lr.last_change == pytest.approx(plain.meta_lr.last_change, rel=1e-4)
    assert run.meta_lr.guard_counts == plain.meta_lr.guard_counts


def test_a_horizon_that_is_moved_moves_the_graphs(monkeypatch):
    data = batches(STEPS)
    plain, run = Training("sgd"), Training("sgd")
    plain.train(data[:6])
    run.train(data[:3])
    graph = run.captured(data[3], monkeypatch)
    run.train(data[4:6], graph.replay)
    for each in (plain, run):
        each.meta_lr.total_steps = 16
    plain.train(data[6:])
    run.train(data[6:], graph.replay)
    assert run.rates == pytest.approx(plain.rates, rel=1e-5)


def test_a_state_after_replays_is_resumed_exactly(monkeypatch):
    """By a run that makes a graph of its own."""
    data = batches(STEPS)
    run = Training("adamw")
    run.train(data[:3])
    graph = run.captured(data[3], monkeypatch)
    run.train(data[4:7], graph.replay)
    resumed = Training("adamw")
    resumed.train(batches(1, seed=5))
    states = [copy.deepcopy(part.state_dict()) for part in (run.model, run.optimizer, run.meta_lr)]
    for part, state in zip((resumed.model, resumed.optimizer, resumed.meta_lr), states, strict=True):
        part.load_state_dict(state)
    resumed.rates.clear()
    resumed.train(data[7:9])
    again = resumed.captured(data[9], monkeypatch)
    resumed.train(data[10:], again.replay)
    assert resumed.rates == run.train(data[7:], graph.replay)[7:]


def test_a_graph_is_made_after_two_ordinary_steps(monkeypatch):
    run = Training("sgd")
    run.train(batches(1))
    with pytest.raises(RuntimeError, match="take 2 steps before"), Graph(monkeypatch):
        run.step()


def test_a_graph_is_not_made_of_a_controller_that_was_replaced(monkeypatch):
    run = Training("sgd")
    run.train(batches(3))
    MetaLR(run.optimizer, 40, random_policy())
    with pytest.raises(RuntimeError, match="replaced by a newer one"), Graph(monkeypatch):
        run.step()
