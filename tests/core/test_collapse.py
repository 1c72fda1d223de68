"""A collapse is seen, brings the rate down, and takes the weights back where asked; healthy runs are left alone."""

import copy
import io
import logging
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from metalr import Guards, LRPolicy, MetaLR
from metalr.core.backend import TORCH
from metalr.core.features import FeatureState, observe
from metalr.core.guards import COLLAPSE_CUT, GuardState, Proposal, protect
from metalr.core.policy import BOOSTING_POLICIES
from metalr.core.signals import Signals
from metalr.core.update_rule import clock
from metalr.core.weight_snapshot import WeightSnapshot, buffers_with
from tests.collapse import FALL, STEPS, collapsing
from tests.conftest import constant_policy
from tests.core.losses import HEALTHY, N, descent, noise
from tests.problem import batches, make_run

Curves = dict[str, tuple[np.ndarray, np.ndarray]]
"""Loss and gradient norm of each step, by name."""


def collapses(curves: Curves, total: int | None) -> dict[str, list[int]]:
    """Steps at which a collapse of these runs is seen, side by side."""
    runs = len(curves)
    features, state, s = FeatureState.empty(runs), GuardState.empty(runs), torch.zeros(runs)
    found: dict[str, list[int]] = {name: [] for name in curves}
    losses, grads = (torch.tensor(np.array([c[i] for c in curves.values()]), dtype=torch.float32).T for i in (0, 1))
    for t, (loss, grad) in enumerate(zip(losses, grads, strict=True)):
        ones, now = torch.ones(runs), clock(t, total)
        signals = Signals(loss, grad, ones, 0.1 * ones, 0 * ones, ones, 0 * ones, 0 * ones, ones, 0 * ones)
        features, _, finite = observe(TORCH, features, signals, s, now)
        state, _, acted = protect(
            TORCH, Guards(divergence=None), state, features, now, Proposal(loss, s, s, finite, finite, None)
        )
        for name, seen in zip(curves, acted.collapse.tolist(), strict=True):
            found[name] += [t] if seen else []
    return found


def at_random(count: int, seed: int) -> np.ndarray:
    return np.array(noise(count, seed))


FALLEN = np.array(descent(300, scale=0.05))
LOST = 2.3 + 0.05 * at_random(300, 3)
LIVELY = np.exp(0.3 * at_random(300, 4))

COLLAPSED: Curves = {
    "back, and the gradient dies": (np.append(FALLEN, LOST), np.append(LIVELY, 0.05 * LIVELY)),
    "back, and the gradient stays": (np.append(FALLEN, LOST), np.append(LIVELY, LIVELY)),
    "a small descent of a noisy loss is lost, and the gradient dies": (
        np.append(0.69 - 0.25 * (1 - np.exp(-np.arange(300) / 50)), np.full(300, 0.7)) + 0.1 * at_random(600, 7),
        np.append(3.0 * LIVELY, 0.2 * LIVELY),
    ),
    "never fell, and the gradient dies": (2.3 + 0.05 * at_random(600, 10), np.append(LIVELY, 0.02 * LIVELY)),
}


def test_a_collapse_is_seen_once_and_in_time():
    found = collapses(COLLAPSED, 1000)
    slow = 0.2 * 2 * (300 + 50 + 140)  # the slow window grows while it is waited for
    for name, steps in found.items():
        assert len(steps) == 1, (name, steps)
        assert 300 < steps[0] <= 300 + 1.2 * slow, (name, steps)
    assert found["back, and the gradient dies"][0] < 400  # two middle windows after it


@pytest.mark.parametrize(("factor", "shift"), [(1e-4, 0.0), (1e4, 7.0), (3.0, -100.0)])
def test_a_collapse_is_one_in_any_unit_of_the_loss(factor, shift):
    other = {name: (factor * (loss + shift), factor * grad) for name, (loss, grad) in COLLAPSED.items()}
    plain = collapses(COLLAPSED, 1000)
    for name, steps in collapses(other, 1000).items():
        assert steps == pytest.approx(plain[name], abs=2), name  # float32 rounds what was shifted


def gradients(loss: np.ndarray) -> dict[str, np.ndarray]:
    """Norms of gradients that healthy runs of some loss may have."""
    count, steps = len(loss), np.arange(len(loss))
    smooth = np.convolve(np.pad(loss, 10, mode="edge"), np.ones(21) / 21, "valid")
    above = np.clip(smooth - smooth.min() + 0.05, 0.01, None)
    jitter = np.exp(0.3 * at_random(count, 6))
    return {
        "noisy": jitter,
        "as the loss": above * jitter,
        "as its root": np.sqrt(above) * jitter,
        "decays to a tenth": 10.0 ** (-steps / count) * jitter,
        "decays to a hundredth": 100.0 ** (-steps / count) * jitter,
        "grows tenfold": 10.0 ** (steps / count) * jitter,
        "large at first": np.where(steps < 10, 5.0, 1.0) * jitter,
    }


def healthy_losses() -> dict[str, np.ndarray]:
    """Losses of many shapes, N steps each, of which none collapses."""
    t = np.arange(N)
    found = {name: np.array(loss) for name, loss in HEALTHY.items()}
    for seed in range(3):
        n = at_random(N, 20 + seed)
        restarts = 0.3 * (1 + np.cos(np.pi * (t % 250) / 250)) * (t >= 250)
        found |= {
            f"zero on average {seed}": n,
            f"a plateau, then a descent {seed}": 0.03 * n
            + np.where(t < 400, 2.303 + 0.03 * np.exp(-t / 5), 0.3 + 2 * np.exp(-(t - 400) / 100)),
            f"warm restarts {seed}": 0.5 + 1.8 * np.exp(-t / 60) + restarts + 0.05 * n,
            f"memorised, with a spike now and then {seed}": 2.3 * np.exp(-t / 40)
            + 1e-4 * np.abs(n)
            + 0.3 * np.isin(t, [500, 501, 700]),
            f"memorised slowly, noise in proportion {seed}": 3 * np.exp(-t / 150) * (1 + 0.3 * n),
            f"oscillating {seed}": 1 + 0.5 * np.sin(t / (4 + 12 * seed)) + 0.05 * n,
            f"hardly any descent {seed}": 0.69 - 0.05 * (1 - np.exp(-t / 300)) + 0.08 * n,
        }
    return found


@pytest.mark.parametrize(("steps", "total"), [(N, N), (N, None), (300, 300), (150, 150), (60, 60)])
def test_a_healthy_run_is_no_collapse(steps, total):
    curves = {
        f"{name}; gradient {kind}": (loss[:steps], grad)
        for name, loss in healthy_losses().items()
        for kind, grad in gradients(loss[:steps]).items()
    }
    assert {name: found for name, found in collapses(curves, total).items() if found} == {}


# What it does.


class Net(nn.Module):
    """The problem's model with a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Run:
    """A run that collapses, which notes weights, buffers and optimizer state before each update."""

    def __init__(self, optimizer, guards: Guards, policy=None, module: bool = True, total: int = STEPS) -> None:
        self.net = Net()
        self.optimizer = optimizer(self.net.parameters())
        self.meta_lr = MetaLR(
            self.optimizer, total, policy or LRPolicy(), guards=guards, module=self.net if module else None
        )
        self.seen: list[dict] = []
        self.rates: list[float] = []

    def now(self) -> dict:
        return copy.deepcopy({"net": self.net.state_dict(), "state": self.optimizer.state_dict()["state"]})

    def train(self, first: int = 0, last: int = STEPS):
        for step, (x, y) in list(enumerate(batches(STEPS)))[first:last]:
            loss = collapsing(F.cross_entropy(self.net(x), y), step)
            self.optimizer.zero_grad()
            loss.backward()
            self.seen.append(self.now())
            self.meta_lr.step(loss)
            self.rates.append(self.meta_lr.last_lr[0])
            if self.meta_lr.events and self.meta_lr.events[-1].last == step:
                self.after = self.now()
                self.known = self.meta_lr._direction.state_dict()
                self.gradients = [float(p.grad.abs().sum()) for p in self.net.parameters()]
            self.optimizer.step()
        return self


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "adamw, a rate that is a tensor": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3)),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
}


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return one == other


def test_the_rate_falls_to_a_tenth_and_stays_below_whatever_the_policy_asks_for(caplog):
    """A policy that always raises the rate, early in a long run, whose reference schedule is level there."""
    with caplog.at_level(logging.WARNING, "metalr"):
        run = Run(lambda p: torch.optim.SGD(p, lr=1e-5), Guards(), constant_policy(0.1), total=10 * STEPS).train()
    (event,) = run.meta_lr.events
    assert (event.guard, event.count, event.restored) == ("collapse", 1, None)
    assert FALL + 16 <= event.step <= FALL + 28  # two middle windows, and what the averages take
    assert run.meta_lr.guard_counts["collapse"] == 1
    assert "guard collapse acts at step" in caplog.text
    before, at = run.rates[event.step - 1], run.rates[event.step]
    assert at == pytest.approx(before * math.exp(-COLLAPSE_CUT), rel=0.01)  # the reference schedule goes on
    assert all(rate <= at * (1 + 1e-6) for rate in run.rates[event.step :])
    assert run.rates[-1] == pytest.approx(at)  # as far up as it may


def test_the_explanation_names_it():
    run = Run(OPTIMIZERS["momentum"], Guards())
    named = []
    for step in range(STEPS):
        run.train(step, step + 1)
        named += [step] if "collapse" in run.meta_lr.explain().guards else []
    assert named == [event.step for event in run.meta_lr.events]
    assert len(named) == 1


def test_it_can_be_off():
    assert Run(OPTIMIZERS["momentum"], Guards(collapse=False)).train().meta_lr.events == []
    assert Run(OPTIMIZERS["momentum"], Guards.none()).train().meta_lr.events == []


def test_rates_on_a_device_are_those_of_the_host():
    host, device = (Run(OPTIMIZERS[name], Guards()).train() for name in list(OPTIMIZERS)[:2])
    assert device.rates == pytest.approx(host.rates, rel=1e-4)
    assert device.meta_lr.guard_counts == host.meta_lr.guard_counts


# Restore.


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_buffers_and_optimizer_go_back_to_the_copy(name, caplog):
    with caplog.at_level(logging.WARNING, "metalr"):
        run = Run(OPTIMIZERS[name], Guards(restore=10)).train()
    (event,) = run.meta_lr.events
    assert event.guard == "collapse"
    assert 20 <= event.restored < FALL  # not the last step before it, but none of what it lost
    assert f"go back from step {event.step} to step {event.restored}" in caplog.text
    there = run.seen[event.restored]
    assert not equal(there["net"], run.seen[event.step]["net"])
    assert equal(run.after, there)
    assert run.gradients == [0.0] * 6
    assert not any(run.known.values())  # no direction of the weights that were given up


def test_state_that_was_made_after_the_copy_is_forgotten():
    """The first copy, of a run that has no other, is older than the optimizer's moments."""
    run = Run(OPTIMIZERS["adamw"], Guards(restore=1000)).train()
    (event,) = run.meta_lr.events
    assert event.restored == 0
    assert run.after["state"] == {}
    assert equal(run.after["net"], run.seen[0]["net"])


def test_without_the_module_its_buffers_stay():
    run = Run(OPTIMIZERS["momentum"], Guards(restore=10), module=False).train()
    (event,) = run.meta_lr.events
    mean, weight = "layers.1.running_mean", "layers.1.weight"
    assert equal(run.after["net"][weight], run.seen[event.restored]["net"][weight])
    assert equal(run.after["net"][mean], run.seen[event.step]["net"][mean])


def test_a_run_without_a_collapse_has_the_same_rates_and_weights_with_restore(policy):
    plain, kept = make_run("adam", policy), make_run("adam", policy)
    kept.meta_lr = MetaLR(kept.optimizer, 40, policy, guards=Guards(restore=3))
    assert kept.train(batches(40)).rates == plain.train(batches(40)).rates
    assert equal(kept.model.state_dict(), plain.model.state_dict())


def test_the_copy_is_no_part_of_the_state_and_a_resumed_run_makes_a_new_one():
    whole = Run(OPTIMIZERS["adamw"], Guards(restore=10)).train()
    first = Run(OPTIMIZERS["adamw"], Guards(restore=10)).train(0, 35)
    stored = io.BytesIO()
    torch.save([first.net.state_dict(), first.optimizer.state_dict(), first.meta_lr.state_dict()], stored)
    stored.seek(0)
    states = torch.load(stored, weights_only=True)
    resumed = Run(OPTIMIZERS["adamw"], Guards(restore=10))
    for part, state in zip((resumed.net, resumed.optimizer, resumed.meta_lr), states, strict=True):
        part.load_state_dict(state)
    resumed.train(35)
    (event,), (wholes,) = resumed.meta_lr.events, whole.meta_lr.events
    assert event.step == wholes.step
    assert 35 <= event.restored < FALL
    assert equal(resumed.after, resumed.seen[event.restored - 35])
    assert resumed.rates[: event.step - 34] == whole.rates[35 : event.step + 1]


def test_a_collapse_without_a_copy_brings_the_rate_down_alone():
    """Resumed when the run had collapsed: its weights are not worth a copy."""
    first = Run(OPTIMIZERS["adamw"], Guards(restore=10)).train(0, FALL + 10)
    resumed = Run(OPTIMIZERS["adamw"], Guards(restore=10))
    for part, state in ((resumed.net, first.net), (resumed.optimizer, first.optimizer)):
        part.load_state_dict(state.state_dict())
    resumed.meta_lr.load_state_dict(first.meta_lr.state_dict())
    resumed.train(FALL + 10)
    (event,) = resumed.meta_lr.events
    assert (event.guard, event.restored) == ("collapse", None)


def test_a_state_from_before_this_guard_is_read():
    run = Run(OPTIMIZERS["adamw"], Guards()).train(0, 30)
    state = copy.deepcopy(run.meta_lr.state_dict()) | {"version": 6}
    known = state["guard_state"]
    state["guard_state"] = {name: known[name] for name in ("low", "noise", "share", "rest", "counts")}
    state["guard_state"]["counts"] = state["guard_state"]["counts"][:4]
    del state["guards"]["counts"]["collapse"]
    run.meta_lr.load_state_dict(state)
    run.train(30)
    assert [event.guard for event in run.meta_lr.events] == ["collapse"]


def test_a_parameter_that_is_thawed_is_copied_at_once():
    net = Net()
    net.layers[0].requires_grad_(False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    snapshot = WeightSnapshot(optimizer)
    snapshot.take()
    assert snapshot.covers_all
    net.layers[0].requires_grad_(True)
    assert not snapshot.covers_all
    snapshot.take()
    assert snapshot.covers_all


def test_buffers_go_with_the_parameters_around_them():
    def block() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False))

    pair = nn.ModuleDict({"critic": block(), "generator": block()})
    names = {name for name, _ in buffers_with(pair, set(pair["critic"].parameters()))}
    assert names == {f"critic.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}


def test_nested_state_and_plain_values_go_back():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    optimizer.state[weight] = {"step": 3, "factors": [torch.ones(2), {"root": torch.zeros(3)}], "name": "a"}
    snapshot = WeightSnapshot(optimizer)
    snapshot.take()
    before = copy.deepcopy(dict(optimizer.state[weight]))
    optimizer.state[weight] = {"step": 9, "factors": [torch.zeros(2)], "new": torch.ones(1)}
    snapshot.put_back()
    after = optimizer.state[weight]
    assert after["step"] == 3
    assert after["name"] == "a"
    assert "new" not in after
    assert equal(after["factors"][0], before["factors"][0])
    assert equal(after["factors"][1], before["factors"][1])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"restore": 0}, "restore=0: give the number of steps"),
        ({"restore": True}, "restore=True: give the number of steps"),
        ({"restore": 2.5}, "restore=2.5: give the number of steps"),
        ({"restore": 10, "collapse": False}, "restore=10 with collapse=False"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Guards(**bad)


def test_trees_do_not_go_back():
    optimizer = torch.optim.SGD(Net().parameters(), lr=0.1)
    optimizer.lr_policies = BOOSTING_POLICIES
    with pytest.raises(ValueError, match="restore with boosted trees: those that were grown do not go back"):
        MetaLR(optimizer, 10, guards=Guards(restore=5))
