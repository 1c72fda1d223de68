"""Each guard acts when it should, can be seen, can be turned off, and leaves healthy runs alone."""

import io
import logging
import math
import multiprocessing
import os
from datetime import timedelta
from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from metalr import DivergenceError, Guards, LRPolicy, MetaLR
from metalr.core.backend import TORCH
from metalr.core.features import FEATURES, FeatureState, observe
from metalr.core.guard_record import EVENTS, GuardRecord
from metalr.core.guards import DIVERGENCE_CUT, GuardState, Proposal, protect
from metalr.core.signals import Signals
from metalr.core.update_rule import clock
from tests.conftest import constant_policy, random_policy
from tests.core.losses import HEALTHY, N, descent, noise
from tests.problem import batches, make_run


def divergences(shapes: dict[str, list[float]], total: int | None, descents: float = 1.0) -> dict[str, list[int]]:
    """Steps at which the divergence guard cuts the rates of runs with these losses, side by side."""
    runs = len(shapes)
    features, guard_state, s, ones = (
        FeatureState.empty(runs),
        GuardState.empty(runs),
        torch.zeros(runs),
        torch.ones(runs),
    )
    cuts: dict[str, list[int]] = {name: [] for name in shapes}
    for t, losses in enumerate(zip(*shapes.values(), strict=True)):
        now = clock(t, total)
        signals = Signals(
            torch.tensor(losses, dtype=torch.float32),
            ones,
            ones,
            0.1 * ones,
            0.0 * ones,
            ones,
            0.0 * ones,
            0.0 * ones,
            ones,
            0.0 * ones,
        )
        features, _, finite = observe(TORCH, features, signals, s, now)
        step = Proposal(signals.loss, s, s, finite, finite, None)
        guard_state, _, acted = protect(TORCH, Guards(divergence=descents), guard_state, features, now, step)
        for name, cut in zip(shapes, acted.divergence.tolist(), strict=True):
            cuts[name] += [t] if cut else []
    return cuts


@pytest.mark.parametrize(("steps", "total"), [(N, N), (N, None), (300, 300)])
def test_a_healthy_loss_is_no_divergence(steps, total):
    cuts = divergences({name: losses[:steps] for name, losses in HEALTHY.items()}, total)
    assert cuts == {name: [] for name in HEALTHY}


DESCENT = descent(300)
DIVERGING = {
    "without bound": [0.3 * 1.1**t for t in range(100)],
    "to a level": [8.0 + 0.1 * n for n in noise(100)],
    "in steps": [0.3 + 2 * (t // 10) for t in range(100)],
}


def test_a_divergence_is_seen_soon_and_again():
    every = divergences({name: DESCENT + tail for name, tail in DIVERGING.items()}, 1000)
    for cuts in every.values():
        assert 300 <= cuts[0] <= 350
        assert all(b - a > 0.05 * 2 * (300 + 50) for a, b in pairwise(cuts))  # a middle window apart
    assert len(every["without bound"]) >= 2


def test_a_divergence_is_one_in_any_unit_of_the_loss():
    losses = DESCENT + DIVERGING["in steps"]
    units = [(1.0, 0.0), (1e-4, 0.0), (1e4, 7.0), (3.0, -100.0)]
    plain, *others = divergences({str(u): [u[0] * (x + u[1]) for x in losses] for u in units}, 1000).values()
    assert plain
    for other in others:
        assert other == pytest.approx(plain, abs=1)  # float32 rounds what was shifted


def test_where_it_is_off_nothing_is_a_divergence():
    features, guard_state, now = FeatureState.empty(1), GuardState.empty(1), clock(100, 200)
    step = Proposal(torch.tensor([1e9]), torch.zeros(1), torch.ones(1), *2 * (torch.tensor([True]),), None)
    after, s, acted = protect(TORCH, Guards(divergence=None), guard_state, features, now, step)
    assert float(s) == 1.0
    assert not any(bool(each) for each in acted)
    assert all(torch.equal(a, b) for a, b in zip(after, guard_state, strict=True))


def test_the_rate_may_not_rise_in_a_divergence_and_falls_by_half():
    """A policy that always raises the rate, on a loss that leaves for good at step 150."""
    run = make_run("sgd", constant_policy(0.02), 400)
    losses = iter(descent(150) + [50.0 + t for t in range(60)])
    log_multipliers = []
    for x, y in batches(210):
        run.optimizer.zero_grad()
        F.cross_entropy(run.model(x), y).backward()
        run.meta_lr.step(next(losses))
        log_multipliers.append(run.meta_lr.log_multiplier)
    event, *later = run.meta_lr.events
    assert {event.guard, *(other.guard for other in later)} == {"divergence"}
    assert event.count + sum(other.count for other in later) == run.meta_lr.guard_counts["divergence"]
    assert 150 < event.step < 175
    before, at = log_multipliers[event.step - 1 : event.step + 1]
    assert at - before == pytest.approx(-DIVERGENCE_CUT, abs=1e-5)
    assert log_multipliers[event.step + 1] == pytest.approx(at)  # held, until the next cut
    assert all(b >= a for a, b in pairwise(log_multipliers[:140]))


def train_with_divergence(guards: Guards) -> MetaLR:
    run = make_run("sgd", LRPolicy(), 300)
    meta_lr = MetaLR(run.optimizer, 300, LRPolicy(), guards=guards)
    for (x, y), loss in zip(batches(180), descent(120) + [99.0] * 60, strict=True):
        run.optimizer.zero_grad()
        F.cross_entropy(run.model(x), y).backward()
        meta_lr.step(loss)
    return meta_lr


def test_a_divergence_is_reported_where_asked():
    with pytest.raises(DivergenceError, match=r"diverges at step 1\d\d.*loss_rise_depth"):
        train_with_divergence(Guards(on_divergence="raise"))
    with pytest.warns(UserWarning, match=r"diverges at step 1\d\d.*loss_rise_depth"):
        train_with_divergence(Guards(on_divergence="warn"))
    assert train_with_divergence(Guards()).guard_counts["divergence"] > 0
    assert train_with_divergence(Guards(divergence=None)).guard_counts["divergence"] == 0


# Limits.


@pytest.mark.parametrize("output", [100.0, -100.0])
def test_a_poisoned_policy_stays_within_the_limits(output):
    guards = Guards(min_multiplier=0.1, max_multiplier=10.0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=1e-3)
    meta_lr = MetaLR(optimizer, 100, constant_policy(output), guards=guards)
    for _ in range(100):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        meta_lr.step(1.0)
        assert abs(meta_lr.log_multiplier) <= math.log(10) + 1e-5
    assert meta_lr.guard_counts["limit"] > 90
    (event,) = meta_lr.events
    assert (event.guard, event.last) == ("limit", 99)


def test_a_poisoned_policy_in_a_real_run_ends_with_finite_rates():
    """It drives the rate up until everything explodes: the rates stay finite, and each guard says what it did."""
    run = make_run("sgd", constant_policy(100.0), 200)
    with torch.no_grad():
        run.train(batches(0))
    for x, y in batches(200):
        loss = F.cross_entropy(run.model(x), y)
        run.optimizer.zero_grad()
        loss.backward()
        run.meta_lr.step(loss)
        run.optimizer.step()
        assert 0 < run.meta_lr.last_lr[0] < 1e5
    assert sum(run.meta_lr.guard_counts.values()) > 0


def test_limits_can_be_off():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=1e-3)
    meta_lr = MetaLR(optimizer, 100, constant_policy(100.0), guards=Guards(max_multiplier=None, divergence=None))
    for _ in range(100):
        optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
        meta_lr.step(1.0)
    assert meta_lr.log_multiplier == pytest.approx(14.0)
    assert meta_lr.events == []


# Not finite.


def test_nan_gradients_halve_the_rate_and_are_seen(policy, caplog):
    run = make_run("sgd", policy).train(batches(5))
    before = run.meta_lr.log_multiplier
    with caplog.at_level(logging.WARNING, "metalr"):
        for _ in range(3):
            for p in run.model.parameters():
                p.grad = torch.full_like(p, math.nan)
            run.meta_lr.step(1.0)
    assert run.meta_lr.log_multiplier == pytest.approx(before - 3 * math.log(2))
    assert run.meta_lr.guard_counts["non_finite"] == 3
    (event,) = run.meta_lr.events
    assert (event.guard, event.step, event.last, event.count) == ("non_finite", 5, 7, 3)
    assert "non_finite" in run.meta_lr.explain().guards
    assert len([r for r in caplog.records if "non_finite acts at step 5" in r.message]) == 1


def test_actions_with_a_step_in_between_are_two_events(policy):
    run = make_run("sgd", policy).train(batches(5))
    for loss in (math.nan, 1.0, math.nan, math.nan):
        for p in run.model.parameters():
            p.grad = torch.ones_like(p)
        run.meta_lr.step(loss)
    assert [(event.step, event.last, event.count) for event in run.meta_lr.events] == [(5, 5, 1), (7, 8, 2)]


def test_with_that_guard_off_the_rate_is_left_alone(policy):
    run = make_run("sgd", policy)
    run.meta_lr = MetaLR(run.optimizer, 40, policy, guards=Guards(non_finite=False))
    run.train(batches(5))
    before = run.meta_lr.log_multiplier
    for p in run.model.parameters():
        p.grad = torch.full_like(p, math.inf)
    run.meta_lr.step(math.nan)
    assert run.meta_lr.log_multiplier == before
    assert run.meta_lr.guard_counts["non_finite"] == 0
    run.train(batches(3, seed=1))


def test_a_policy_with_nan_weights_freezes_the_decision():
    """No file holds one (the loader refuses it), but a policy made in features may."""
    run = make_run("sgd", constant_policy(math.nan), 40).train(batches(10))
    assert run.meta_lr.log_multiplier == pytest.approx(-10 * math.log(2))
    assert run.meta_lr.guard_counts["non_finite"] == 10


def test_exploding_batches_leave_the_rate_finite(policy):
    run = make_run("adam", policy, 60)
    for t, (x, y) in enumerate(batches(60)):
        run.train([(x * (1e25 if t % 7 == 3 else 1.0), y)])
        assert math.isfinite(run.meta_lr.last_lr[0])
        assert run.meta_lr.last_lr[0] > 0


# Out of distribution.


def narrow(policy: LRPolicy, centre: float) -> LRPolicy:
    """A policy whose meta-training saw states about one point only."""
    generator = torch.Generator().manual_seed(0)
    policy.learn_support(centre + 0.01 * torch.randn(2000, len(FEATURES), generator=generator))
    return policy


def test_out_of_distribution_the_policys_change_fades_to_zero():
    run = make_run("sgd", narrow(constant_policy(0.5), centre=2.9), 40).train(batches(20))
    assert run.meta_lr.log_multiplier == 0.0  # the reference schedule
    assert run.meta_lr.guard_counts["out_of_distribution"] == 20
    assert {event.guard for event in run.meta_lr.events} == {"out_of_distribution"}
    assert set(run.meta_lr.events[0].features) == set(FEATURES)


def test_the_out_of_distribution_guard_can_be_off():
    policy = narrow(random_policy(), centre=2.9)
    run = make_run("sgd", policy)
    run.meta_lr = MetaLR(run.optimizer, 40, policy, guards=Guards(out_of_distribution=False))
    plain = make_run("sgd", random_policy())
    assert run.train(batches(20)).rates == plain.train(batches(20)).rates


@pytest.mark.parametrize("score", [0.0, 0.25, 1.0])
def test_the_change_fades_in_proportion_to_the_score(score):
    yes = torch.tensor([True])
    step = Proposal(torch.ones(1), torch.tensor([1.0]), torch.tensor([1.4]), yes, yes, torch.tensor([score]))
    _, s, acted = protect(TORCH, Guards(), GuardState.empty(1), FeatureState.empty(1), clock(5, 100), step)
    assert float(s) == pytest.approx(1.4 - 0.4 * score)
    assert bool(acted.out_of_distribution) == (score > 0)


# What they leave alone.


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_a_healthy_run_has_the_same_rates_with_guards_and_without(name):
    policy = random_policy(strength=0.05)
    guarded, free = make_run(name, policy, 60), make_run(name, policy, 60)
    free.meta_lr = MetaLR(free.optimizer, 60, policy, guards=Guards.none())
    assert guarded.train(batches(60)).rates == free.train(batches(60)).rates
    assert guarded.meta_lr.events == []


def test_guards_count_and_remember_over_a_resume(policy):
    def train(run, data, bad):
        for t, (x, y) in enumerate(data):
            run.train([(x, y)], (lambda loss: loss * math.nan) if t in bad else (lambda loss: loss))
        return run

    whole = train(make_run("sgd", policy), batches(20), {4, 5, 12})
    broken = train(make_run("sgd", policy), batches(20)[:9], {4, 5})
    stored = io.BytesIO()
    torch.save(broken.state(), stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    resumed = train(make_run("sgd", policy, seed=5).load(state), batches(20)[9:], {3})
    assert resumed.rates == whole.rates[9:]
    assert resumed.meta_lr.guard_counts == whole.meta_lr.guard_counts
    assert resumed.meta_lr.events == whole.meta_lr.events
    ours, theirs = (run.meta_lr._decider.state_dict()["guard_state"] for run in (resumed, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_record_is_bounded():
    record = GuardRecord(Guards())
    for t in range(1, 3 * EVENTS):
        record.note([t, 0, 0, 0, 0], 2 * t - 1, 2 * t, 0.0, {})
    assert len(record.events) == EVENTS
    assert record.counts["non_finite"] == 3 * EVENTS - 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"min_multiplier": 0.0}, "min_multiplier=0.0"),
        ({"min_multiplier": 2.0}, "min_multiplier=2.0"),
        ({"max_multiplier": 0.5}, "max_multiplier=0.5"),
        ({"max_multiplier": math.inf}, "max_multiplier=inf"),
        ({"divergence": -1.0}, "divergence=-1.0"),
        ({"on_divergence": "loudly"}, "on_divergence='loudly'"),
        ({"divergence": "warn"}, "on_divergence='warn'"),
        ({"divergence": None, "on_divergence": "raise"}, "divergence=None"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(ValueError, match=message):
        Guards(**bad)


def train_a_rank(rank: int, store: str) -> None:
    """One of two ranks; the second dies in the fifth step."""
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=20))
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    meta_lr = MetaLR(optimizer, 20, LRPolicy())
    for step in range(20):
        if rank == 1 and step == 5:
            os._exit(9)
        loss = model(torch.ones(2, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        meta_lr.step(mean / 2)
        optimizer.step()


def test_when_a_rank_dies_the_other_ends_with_an_error(tmp_path):
    """Not with a hang, and not as if nothing had happened."""
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=train_a_rank, args=(rank, str(tmp_path / "store"))) for rank in (0, 1)]
    for process in ranks:
        process.start()
    try:
        ranks[0].join(timeout=120)
        ended = ranks[0].exitcode
    finally:
        for process in ranks:
            process.kill()
            process.join()
    assert ranks[1].exitcode == 9
    assert ended == 1  # an exception; None would be a hang, 0 as if nothing had happened
