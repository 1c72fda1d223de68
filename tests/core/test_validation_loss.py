"""The validation loss as an input: what is remembered of it, what is read, and when."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from metalr import LRPolicy, MetaLR
from metalr.core.backend import HOST, TORCH
from metalr.core.features import CLIP, FEATURES, FeatureState
from metalr.core.state_checks import STATE_VERSION
from metalr.core.validation_loss import VALIDATION_FEATURES, Validation, read, remember
from tests.conftest import random_policy, validating_policy
from tests.problem import batches, make_model, make_run

DEPTH, WINDOW = 2.0, 20.0
NAMES = [FEATURES.index(name) for name in VALIDATION_FEATURES]


def host(losses, training=0.0):
    """Features of each step on the host."""
    stack, rows = [0.0] * len(Validation._fields), []
    for loss in losses:
        stack = remember(HOST, stack, loss, training, WINDOW)
        rows.append([read(HOST, stack, DEPTH, WINDOW)[name] for name in VALIDATION_FEATURES])
    return rows


def test_golden_numbers():
    """3 at step 1, 2 five steps later, 2.6 at the next: averages 3, 3 - 5/20, 2.75; training loss 2.5."""
    rows = host([math.nan, 3.0, *[math.nan] * 4, 2.0, 2.6], training=2.5)
    assert rows[0] == [0.0] * 4
    assert rows[1] == pytest.approx([0.0, 0.0, math.asinh(3 * 0.5 / 2), 2.0])
    assert rows[5] == pytest.approx([0.0, 0.0, math.asinh(0.75), 2.0 / (1.0 + 2 * 4 / 20)])
    assert rows[6] == pytest.approx([math.asinh(-10 * 1.0 / 2), 0.0, math.asinh(-0.75), 2.0])
    assert rows[7] == pytest.approx([math.asinh(-10 * 0.15 / 2), math.asinh(10 * 0.6 / 2), math.asinh(0.15), 2.0])


@given(losses=st.lists(st.one_of(st.just(math.nan), st.floats(-4, 4, width=16)), min_size=1, max_size=12))
def test_both_backends_remember_the_same_and_runs_do_not_mix(losses):
    runs = torch.tensor([losses, [1.0] * len(losses), [math.nan] * len(losses)])
    stack, rows = torch.zeros(len(Validation._fields), 3), []
    for column in runs.T:
        stack = remember(TORCH, stack, column, torch.full((3,), 0.5), torch.tensor(WINDOW))
        found = read(TORCH, stack, torch.full((3,), DEPTH), torch.tensor(WINDOW))
        rows.append(torch.stack([found[name] for name in VALIDATION_FEATURES]))
    for run, row in enumerate(torch.stack(rows, 1).movedim(2, 0)):
        assert torch.allclose(row.T, torch.tensor(host(runs[run].tolist(), 0.5)), atol=1e-5)


@given(
    losses=st.lists(st.one_of(st.just(math.nan), st.integers(-64, 64)), min_size=1, max_size=12),
    factor=st.sampled_from([1e-6, 1.0, 1e6]),
    shift=st.sampled_from([-16.0, 0.0, 100.0]),
)
def test_neither_a_shift_nor_a_factor_of_all_losses_changes_a_feature(losses, factor, shift):
    def run(change, depth):
        stack = [0.0] * len(Validation._fields)
        for loss in losses:
            stack = remember(HOST, stack, change(loss / 16), change(0.5), WINDOW)
        return [*read(HOST, stack, depth, WINDOW).values()]

    assert run(lambda x: factor * (x + shift), factor * DEPTH) == pytest.approx(run(lambda x: x, DEPTH), abs=1e-6)


def finite_features(losses, as_lr=float) -> torch.Tensor:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=as_lr(0.1))
    meta_lr, rows = MetaLR(optimizer, 40, LRPolicy()), []
    for loss, (x, y) in zip(losses, batches(len(losses)), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        meta_lr.validation(loss)
        meta_lr.step(F.cross_entropy(model(x), y))
        optimizer.step()
        assert bool(meta_lr._decider.finite)
        rows.append(meta_lr._features)
    return torch.cat(rows)


@pytest.mark.parametrize("as_lr", [float, torch.tensor])
@given(losses=st.lists(st.floats(width=32), min_size=1, max_size=6))
def test_any_validation_loss_at_all_leaves_the_features_finite_and_no_step_is_lost_to_it(as_lr, losses):
    """Infinite, NaN, and so large that its square is infinite."""
    rows = finite_features(losses, as_lr)
    assert bool(torch.isfinite(rows).all())
    assert float(rows.abs().max()) <= CLIP
    bad = [not math.isfinite(loss) or abs(loss) > 1.8e19 for loss in losses]
    assert all(bad) == (float(rows[:, NAMES].abs().max()) == 0.0)


def train(run, losses, data=None):
    """Trains with validation losses by the number of the step before which they come; one NaN for none."""
    for (x, y), loss in zip(data or batches(len(losses)), losses, strict=True):
        if not math.isnan(loss):
            run.meta_lr.validation(loss)
        run.train([(x, y)])
    return run


LOSSES = [math.nan, 1.5, math.nan, math.nan, 1.2, 1.4, *[math.nan] * 3, 1.6, math.nan, 1.1]


@pytest.mark.parametrize("place", ["host", "tensor"])
@pytest.mark.parametrize("broken_at", [4, 5, 8])
def test_a_resumed_loop_has_the_same_rates_to_the_last_bit(place, broken_at):
    """Also where a loss was given and no decision has read it yet."""

    def fresh(seed):
        run = make_run("adam", validating_policy(), seed=seed)
        if place == "tensor":
            for group in run.optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"])
            run.meta_lr = MetaLR(run.optimizer, 40, validating_policy())
        return run

    data = batches(len(LOSSES))
    whole = train(fresh(0), LOSSES, data)
    broken = train(fresh(0), LOSSES[:broken_at], data[:broken_at])
    loss = LOSSES[broken_at]
    if not math.isnan(loss):
        broken.meta_lr.validation(loss)
    stored = io.BytesIO()
    torch.save(broken.state(), stored)
    stored.seek(0)
    resumed = fresh(5).load(torch.load(stored, weights_only=True))
    train(resumed, [math.nan, *LOSSES[broken_at + 1 :]], data[broken_at:])
    assert resumed.rates == whole.rates[broken_at:]
    assert whole.rates != train(fresh(0), [math.nan] * len(LOSSES), data).rates


def test_the_next_finite_step_reads_a_loss_once():
    run = train(make_run("sgd", validating_policy()), [math.nan] * 3)
    run.meta_lr.validation(1.0)
    run.train(batches(1), change=lambda loss: loss * math.nan)
    assert run.features[-1][0, NAMES].tolist() == [0.0] * 4
    run.train(batches(2))
    recency = [float(row[0, FEATURES.index("validation_recency")]) for row in run.features[-2:]]
    assert recency == pytest.approx([2.0, 2.0 / (1.0 + 2.0 / 16.0)])


def test_a_policy_that_reads_none_ignores_it():
    """To the last bit, and with nothing of it in the state."""
    policy = random_policy(distances=False, strength=0.1)
    assert not policy.reads_validation
    run = train(make_run("sgd", policy), LOSSES)
    assert run.rates == train(make_run("sgd", policy), [math.nan] * len(LOSSES)).rates
    assert "validation" not in run.meta_lr.state_dict()
    assert run.meta_lr.state_dict()["feature_state"]["validation"].abs().max() == 0.0


def test_a_state_from_before_there_was_a_validation_loss_is_read():
    policy = random_policy()
    whole = make_run("sgd", policy).train(batches(12))
    broken = make_run("sgd", policy).train(batches(12)[:5])
    state = copy.deepcopy(broken.state())
    meta_lr = state["meta_lr"]
    assert meta_lr["version"] == STATE_VERSION
    meta_lr["version"] = 6
    del meta_lr["feature_state"]["validation"], meta_lr["validation"]
    assert make_run("sgd", policy, seed=5).load(state).train(batches(12)[5:]).rates == whole.rates[5:]


def test_rates_on_the_host_and_on_a_device_are_the_same():
    runs = [train(make_run("sgd", validating_policy()), LOSSES)]
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1), momentum=0.9)
    runs.append(train(type(runs[0])(model, optimizer, MetaLR(optimizer, 40, validating_policy())), LOSSES))
    assert [r[0] for r in runs[1].rates] == pytest.approx([r[0] for r in runs[0].rates], rel=2e-3)


def test_with_tensor_rates_a_validation_loss_never_waits_for_the_device(monkeypatch):
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.1))
    meta_lr = MetaLR(optimizer, 40, validating_policy())

    def refuse(*args):
        raise AssertionError("waits for the device")

    with monkeypatch.context() as patch:
        for method in ("item", "tolist", "__float__", "__int__", "__bool__", "cpu", "numpy"):
            patch.setattr(torch.Tensor, method, refuse)
        for loss in (torch.tensor(1.5), torch.tensor([1.2], dtype=torch.float64), 1.1):
            meta_lr.validation(loss)
    assert float(meta_lr._decider._state.validation) == pytest.approx(1.1)


def test_a_loss_that_is_no_scalar_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        make_run("sgd", validating_policy()).meta_lr.validation(torch.ones(2))


def test_a_run_that_was_shown_none_has_no_features_of_it():
    run = train(make_run("sgd", validating_policy()), [math.nan] * 4)
    assert float(torch.cat(run.features)[:, NAMES].abs().max()) == 0.0
    assert FeatureState.empty(2).validation.shape == (len(Validation._fields), 2)


@pytest.mark.parametrize("as_lr", [float, torch.tensor])
def test_a_loss_that_is_not_finite_leaves_the_one_that_waits(as_lr):
    model = make_model()
    meta_lr = MetaLR(torch.optim.SGD(model.parameters(), lr=as_lr(0.1)), 10, validating_policy())
    for loss in (1.5, math.nan, torch.tensor(math.inf)):
        meta_lr.validation(loss)
    assert float(meta_lr.state_dict()["validation"]) == 1.5
