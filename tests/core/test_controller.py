import io
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from metalr import LRPolicy, MetaLR
from metalr.core.features import ANYTIME_FEATURES, FEATURES
from metalr.core.update_rule import log_reference
from tests.conftest import random_policy
from tests.problem import OPTIMIZERS, batches, make_model, make_run


def test_a_zero_policy_is_the_reference_schedule():
    run = make_run("sgd", LRPolicy(), 30).train(batches(30))
    expected = [0.1 * math.exp(log_reference(t, 30)) for t in range(30)]
    assert [r[0] for r in run.rates] == pytest.approx(expected, rel=1e-5)
    anytime = make_run("sgd", LRPolicy(ANYTIME_FEATURES), None).train(batches(5))
    assert [r[0] for r in anytime.rates] == pytest.approx([0.1] * 5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_drives_any_optimizer(name, policy):
    run = make_run(name, policy).train(batches(40))
    rates = [r[0] for r in run.rates]
    assert all(0 < rate < math.inf for rate in rates)
    assert len(set(rates)) == 40
    assert run.optimizer.param_groups[0]["lr"] == rates[-1]
    assert run.meta_lr.get_last_lr() == run.meta_lr.last_lr == run.rates[-1]


def test_groups_keep_their_ratios(policy):
    model = make_model()
    groups = [{"params": model[0].parameters(), "lr": 0.2}, {"params": model[2].parameters(), "lr": 0.001}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    meta_lr = MetaLR(optimizer, 20, policy)
    for x, y in batches(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        first, second = meta_lr.last_lr
        assert first / second == pytest.approx(200.0)


def test_a_group_added_in_the_run_brings_its_own_rate(policy):
    """As of then, beside what the others have then."""
    run = make_run("sgd", policy).train(batches(5))
    (present,) = run.rates[-1]
    run.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.01})
    run.train(batches(3, seed=1))
    assert run.rates[-1][1] / run.rates[-1][0] == pytest.approx(0.01 / present)


@pytest.mark.parametrize(("factor", "shift"), [(1.0, -2.0), (128.0, 0.0), (1 / 128, 0.5)])
def test_the_rates_do_not_know_the_unit_of_the_loss(factor, shift):
    """Adam's updates do not scale with the loss (but for its eps), and nor does the decision."""

    def rates(change):
        model = make_model().double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-30)
        meta_lr = MetaLR(optimizer, 20, random_policy(strength=0.2))
        for x, y in batches(20):
            loss = change(F.cross_entropy(model(x.double()), y))
            optimizer.zero_grad()
            loss.backward()
            meta_lr.step(loss)
            optimizer.step()
            yield meta_lr.last_lr[0]

    plain = list(rates(lambda loss: loss))
    assert list(rates(lambda loss: factor * loss + shift)) == pytest.approx(plain, rel=1e-2)
    assert len(set(plain)) == 20


def test_a_finite_loss_whose_square_is_not_does_no_harm(policy):
    run = make_run("sgd", policy).train(batches(3))
    for p in run.model.parameters():
        p.grad = torch.ones_like(p)
    run.meta_lr.step(1e20)
    run.train(batches(5, seed=1))
    assert all(math.isfinite(r[0]) for r in run.rates)


def test_thawing_one_layer_and_freezing_another_is_noticed(policy):
    run = make_run("rmsprop", policy)
    first, second = run.model[0].weight, run.model[2].weight
    first.requires_grad_(False)
    run.train(batches(3))
    first.requires_grad_(True)
    second.requires_grad_(False)
    run.optimizer.zero_grad()
    run.train(batches(3, seed=1))
    assert {id(p) for p in run.meta_lr._sample.groups[0].params} == {
        id(p) for p in run.model.parameters() if p.requires_grad
    }


def test_a_tensor_rate_is_filled_in_place(policy):
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
    held = optimizer.param_groups[0]["lr"]
    meta_lr = MetaLR(optimizer, 10, policy)
    F.cross_entropy(model(torch.randn(4, 8)), torch.zeros(4, dtype=torch.long)).backward()
    meta_lr.step(1.0)
    assert optimizer.param_groups[0]["lr"] is held
    assert float(held) == pytest.approx(meta_lr.last_lr[0])


class NoHostRead(TorchDispatchMode):
    """Raises where the host would wait for a value that a device has."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            raise AssertionError(f"{func} waits for the device")
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") == torch.device("cpu"):
            raise AssertionError("a copy to the host waits for the device")
        return func(*args, **(kwargs or {}))


def tensor_rate_run(name, policy):
    """A run whose rates are tensors, so that the decision is taken where they are."""
    run = make_run(name, policy)
    for group in run.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    run.meta_lr = MetaLR(run.optimizer, 40, policy)
    return run


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_with_tensor_rates_a_step_never_waits_for_the_device(name, policy, monkeypatch):
    policy.learn_support(torch.randn(2000, len(FEATURES), generator=torch.Generator().manual_seed(0)))
    run = tensor_rate_run(name, policy).train(batches(3))

    def refuse(*args):
        raise AssertionError("waits for the device")

    for x, y in batches(5, seed=1):
        loss = F.cross_entropy(run.model(x), y)
        run.optimizer.zero_grad()
        loss.backward()
        with monkeypatch.context() as patch, NoHostRead():
            for method in ("item", "tolist", "__float__", "__int__", "__bool__", "__index__", "cpu", "numpy"):
                patch.setattr(torch.Tensor, method, refuse)
            run.meta_lr.step(loss)
        run.optimizer.step()
    with pytest.raises(AssertionError, match="waits"), NoHostRead():
        float(run.optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_rates_on_the_host_and_on_a_device_are_the_same(name):
    """Python's decision in double precision and torch's in single, but for rounding."""
    policy = random_policy(strength=0.1)
    policy.learn_support(0.3 * torch.randn(2000, len(FEATURES), generator=torch.Generator().manual_seed(0)))
    host, device = make_run(name, policy).train(batches(30)), tensor_rate_run(name, policy).train(batches(30))
    assert (host.meta_lr._decider.device, device.meta_lr._decider.device) == (None, torch.device("cpu"))
    assert [r[0] for r in device.rates] == pytest.approx([r[0] for r in host.rates], rel=2e-3)
    assert device.meta_lr.guard_counts == host.meta_lr.guard_counts
    assert host.meta_lr.guard_counts["out_of_distribution"] > 0


def test_a_state_goes_from_the_host_to_a_device_and_back(policy):
    """A device has single precision."""
    host = make_run("sgd", policy).train(batches(9))
    moved = tensor_rate_run("sgd", policy).load(host.state())
    assert moved.meta_lr.last_lr == pytest.approx(host.meta_lr.last_lr)
    back = make_run("sgd", policy).load(moved.state())
    rates = [rate for (rate,) in host.train(batches(3, seed=1)).rates[-3:]]
    assert [rate for (rate,) in back.train(batches(3, seed=1)).rates] == pytest.approx(rates, rel=1e-4)


@given(
    bad=st.lists(st.sampled_from(["loss", "grad"]), min_size=1, max_size=6),
    value=st.sampled_from([math.nan, math.inf, -math.inf]),
)
def test_what_is_not_finite_never_ends_in_a_rate_that_is_not(bad, value):
    run = make_run("sgd", random_policy(), 40).train(batches(3))
    before = run.meta_lr.log_multiplier
    for where in bad:
        for p in run.model.parameters():
            p.grad = torch.full_like(p, value if where == "grad" else 1.0)
        run.meta_lr.step(value if where == "loss" else 1.0)
    assert run.meta_lr.log_multiplier == pytest.approx(before - len(bad) * math.log(2))
    run.train(batches(3, seed=2))
    assert all(math.isfinite(r[0]) and r[0] > 0 for r in run.rates)


@pytest.mark.parametrize("horizon", [40, None])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_resumed_loop_has_the_same_rates_to_the_last_bit(name, horizon):
    policy = random_policy(anytime=horizon is None)
    whole = make_run(name, policy, horizon).train(batches(24))
    broken = make_run(name, policy, horizon).train(batches(24)[:9])
    stored = io.BytesIO()
    torch.save(broken.state(), stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    resumed = make_run(name, policy, horizon, seed=5).load(state).train(batches(24)[9:])
    assert resumed.rates == whole.rates[9:]
    assert all(torch.equal(a, b) for a, b in zip(resumed.features, whole.features[9:], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_explain_adds_up(policy):
    run = make_run("adam", policy).train(batches(7))
    explained = run.meta_lr.explain()
    assert explained.step == 6
    assert tuple(explained.features) == policy.features
    assert sum(part.contribution for part in explained.features.values()) + explained.constant == pytest.approx(
        explained.change, abs=1e-6
    )
    assert explained.change == pytest.approx(run.meta_lr.last_change, abs=1e-6)
    assert explained.log_multiplier == run.meta_lr.log_multiplier
    values = dict(zip(policy.features, run.features[-1][0].tolist(), strict=True))
    assert {name: part.value for name, part in explained.features.items()} == pytest.approx(values)


def test_the_horizon_can_move_but_not_vanish(policy):
    run = make_run("sgd", policy, 10).train(batches(5))
    run.meta_lr.total_steps = 20
    run.train(batches(15, seed=1))
    with pytest.raises(ValueError, match="total_steps=None"):
        run.meta_lr.total_steps = None


def test_going_on_beyond_the_horizon_warns_once(policy):
    run = make_run("sgd", policy, 4).train(batches(4))
    with pytest.warns(UserWarning, match="beyond total_steps=4"):
        run.train(batches(1))
    run.train(batches(2))


@pytest.mark.parametrize("total_steps", [0, -3, 2.5, True, math.nan, -math.inf, "100", np.bool_(True), torch.ones(2)])
def test_a_bad_horizon_is_named(total_steps):
    with pytest.raises(ValueError, match=re.escape(f"total_steps={total_steps}")):
        MetaLR(torch.optim.SGD(make_model().parameters(), lr=0.1), total_steps, LRPolicy())


@pytest.mark.parametrize("total_steps", [np.int64(12), np.float32(12), 12.0, torch.tensor(12), torch.tensor([12])])
def test_a_horizon_may_be_any_whole_number(total_steps):
    meta_lr = MetaLR(torch.optim.SGD(make_model().parameters(), lr=0.1), total_steps, LRPolicy())
    assert meta_lr.total_steps == 12
    assert type(meta_lr.total_steps) is int


@pytest.mark.parametrize("total_steps", [math.inf, np.inf, torch.tensor(math.inf), -1])
def test_a_run_without_an_end_is_in_the_anytime_mode(total_steps):
    meta_lr = MetaLR(torch.optim.SGD(make_model().parameters(), lr=0.1), total_steps)
    assert meta_lr.total_steps is None
    assert meta_lr.policy.anytime


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_a_bad_initial_rate_is_named(lr):
    optimizer = torch.optim.SGD(make_model().parameters(), lr=0.1)
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match=r"param_groups\[0\]\['lr'\]"):
        MetaLR(optimizer, 10, LRPolicy())


def test_an_optimizer_without_parameters_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    optimizer.param_groups[0]["params"] = []
    with pytest.raises(ValueError, match="no parameters: give it .* unfreeze .*is_trainable=True"):
        MetaLR(optimizer, 10, LRPolicy())


def test_an_optimizer_with_nothing_to_train_is_refused():
    """Such as that of an adapter which was loaded for inference."""
    model = make_model().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that requires a gradient: unfreeze .*is_trainable=True"):
        MetaLR(torch.optim.SGD(model.parameters(), lr=0.1), 10, LRPolicy())


def test_lbfgs_is_refused():
    with pytest.raises(ValueError, match="LBFGS"):
        MetaLR(torch.optim.LBFGS(make_model().parameters()), 10, LRPolicy())


def test_a_missing_policy_is_refused_before_any_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        MetaLR(torch.optim.SGD(make_model().parameters(), lr=0.1), 10, tmp_path / "nowhere.safetensors")


def test_a_policy_of_the_wrong_mode_is_refused(policy, anytime_policy):
    optimizer = torch.optim.SGD(make_model().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="total_steps is None"):
        MetaLR(optimizer, None, policy)
    with pytest.raises(ValueError, match="anytime mode"):
        MetaLR(optimizer, 10, anytime_policy)


def test_an_optimizers_class_may_name_its_policy(policy):
    class Own(torch.optim.SGD):
        lr_policies = ("boosting", "anytime")

    optimizer = Own(make_model().parameters(), lr=0.1)
    assert MetaLR(optimizer, 10).policy.fingerprint() == LRPolicy.load("boosting").fingerprint()
    assert MetaLR(optimizer).policy.fingerprint() == LRPolicy.load("anytime").fingerprint()
    assert MetaLR(optimizer, 10, policy).policy is policy
    assert MetaLR(optimizer, 10, "default").policy.fingerprint() == LRPolicy.load("boosting").fingerprint()


def test_step_before_backward_is_refused(policy):
    run = make_run("sgd", policy)
    with pytest.raises(RuntimeError, match=r"loss\.backward\(\) before"):
        run.meta_lr.step(1.0)


def test_a_loss_that_is_nan_at_once_is_refused(policy):
    run = make_run("sgd", policy)
    with pytest.raises(ValueError, match="loss=nan at the first step"):
        run.meta_lr.step(float("nan"))


def test_a_loss_that_is_no_scalar_is_refused(policy):
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        make_run("sgd", policy).meta_lr.step(torch.ones(2))


def test_explain_before_a_step_is_refused(policy):
    with pytest.raises(RuntimeError, match="no decision"):
        make_run("sgd", policy).meta_lr.explain()


def test_a_state_of_another_kind_is_refused(policy, anytime_policy):
    state = make_run("sgd", policy).train(batches(2)).meta_lr.state_dict()
    other = make_run("sgd", random_policy(9)).meta_lr
    with pytest.raises(ValueError, match="another policy"):
        other.load_state_dict(state)
    with pytest.raises(ValueError, match="version 99.*upgrade metalr"):
        other.load_state_dict(state | {"version": 99})
    for older in (3, 1, 0, None, "1"):
        with pytest.raises(ValueError, match=f"version {older}.*older metalr"):
            other.load_state_dict(state | {"version": older})
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.1} for _ in range(2)]
    two = MetaLR(torch.optim.SGD(groups, momentum=0.9), 40, policy).state_dict()
    with pytest.raises(ValueError, match="2 parameter groups"):
        make_run("sgd", policy).meta_lr.load_state_dict(two)
    anytime = make_run("sgd", anytime_policy, None).meta_lr
    with pytest.raises(ValueError, match="another policy|anytime mode"):
        anytime.load_state_dict(state)


def test_the_shipped_policies_are_the_default():
    optimizer = torch.optim.SGD(make_model().parameters(), lr=0.1)
    assert not MetaLR(optimizer, 10).policy.anytime
    assert MetaLR(optimizer).policy.anytime
