"""A validation loss that waits, where a graph takes the decisions, and where a run goes back to a copy."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounter

from metalr import Guards, LRPolicy, MetaLR
from tests.collapse import STEPS, collapsing
from tests.conftest import random_policy, validating_policy
from tests.core.graphs import Graph
from tests.in_place import InPlaceTraining
from tests.problem import batches, make_model

LOSSES = [math.nan, 1.5, math.nan, math.nan, math.nan, 1.2, 1.4, *[math.nan] * 3, 1.6, math.nan, 1.1, math.nan]
AS_LR = {"host": float, "tensor": torch.tensor}


class Training(InPlaceTraining):
    """A loop that is given validation losses, with rates that are tensors, or floats."""

    def __init__(self, as_lr, policy=None, fused: bool | None = True) -> None:
        model = make_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=as_lr(0.05), momentum=0.9, fused=fused)
        meta_lr = MetaLR(optimizer, 40, policy or validating_policy())
        super().__init__(model, optimizer, meta_lr, tuple(part.clone() for part in batches(1)[0]))

    def give(self, step: int, losses=LOSSES) -> None:
        self.load(batches(len(losses))[step])
        if not math.isnan(losses[step]):
            self.meta_lr.validation(torch.tensor(losses[step]) if step % 2 else losses[step])

    def train_steps(self, first: int, last: int, take=None, losses=LOSSES):
        for step in range(first, last):
            self.give(step, losses)
            (take or self.step)()
            self.rates.append(self.meta_lr.last_lr[0])
        return self


def replayed(monkeypatch, policy=None, captured: int = 3) -> Training:
    """Three ordinary steps, one that is captured, and its replays."""
    run = Training(torch.tensor, policy).train_steps(0, captured)
    run.give(captured)
    with Graph(monkeypatch) as graph:
        run.step()
    run.rates.append(run.meta_lr.last_lr[0])
    return run.train_steps(captured + 1, len(LOSSES), graph.replay)


@pytest.mark.parametrize("captured", [3, 5])
def test_a_graph_that_is_replayed_reads_each_loss_once(captured, monkeypatch):
    """Whether or not one waited when the graph was made: the rates of a host, which differ from those without."""
    host = Training(float).train_steps(0, len(LOSSES))
    run = replayed(monkeypatch, captured=captured)
    assert run.rates == pytest.approx(host.rates, rel=1e-4)
    never = Training(float).train_steps(0, len(LOSSES), losses=[math.nan] * len(LOSSES))
    assert never.rates != pytest.approx(host.rates, rel=1e-2)
    ours, theirs = (each.meta_lr._decider.feature_state.validation for each in (run, host))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, check_dtype=False)


def test_a_graph_of_a_policy_that_reads_none_has_nothing_to_read(monkeypatch):
    policy = random_policy(distances=False, strength=0.1)
    run = replayed(monkeypatch, policy)
    assert run.meta_lr._decider._state.validation is None
    assert run.rates == pytest.approx(Training(float, policy).train_steps(0, len(LOSSES)).rates, rel=1e-4)


@pytest.mark.slow
def test_a_compiled_step_reads_what_is_given_between_steps():
    torch._dynamo.reset()
    counter, run = CompileCounter(), Training(torch.tensor, fused=None).train_steps(0, 3)
    params = list(run.model.parameters())
    update = type(run.optimizer).step.__wrapped__.__wrapped__  # around it, torch breaks a graph on purpose

    def loss_of(parts, x, y):
        return F.cross_entropy(F.linear(F.relu(F.linear(x, *parts[:2])), *parts[2:]), y)

    @torch.no_grad()
    def whole(x, y):
        grads, loss = torch.func.grad_and_value(loss_of)(params, x, y)
        torch._foreach_copy_([p.grad for p in params], grads)
        run.meta_lr.step(loss)
        update(run.optimizer)

    compiled = torch.compile(whole, backend=counter, fullgraph=True)
    run.train_steps(3, len(LOSSES), lambda: compiled(run.x, run.y))
    torch._dynamo.reset()
    assert counter.frame_count == 1
    assert run.rates == pytest.approx(Training(float).train_steps(0, len(LOSSES)).rates, rel=1e-4)


@pytest.mark.parametrize("as_lr", AS_LR.values(), ids=AS_LR)
def test_a_run_that_goes_back_remembers_the_losses_of_its_copy(as_lr):
    """And none of the weights that it has given up, with which one was shown at every third step."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=as_lr(1e-3))
    meta_lr = MetaLR(optimizer, STEPS, LRPolicy(), guards=Guards(restore=10))
    seen = []
    for step, (x, y) in enumerate(batches(STEPS)):
        loss = collapsing(F.cross_entropy(model(x), y), step)
        optimizer.zero_grad()
        loss.backward()
        if step % 3 == 2:
            meta_lr.validation(loss.detach() + 0.1)
        meta_lr.step(loss)
        optimizer.step()
        seen.append(meta_lr._decider.feature_state.validation.clone())
    (event,) = meta_lr.events
    assert event.restored > 20
    assert torch.equal(seen[event.step], seen[event.restored])
    assert not torch.equal(seen[event.step], seen[event.step - 1])


@pytest.mark.parametrize("as_lr", AS_LR.values(), ids=AS_LR)
def test_a_loss_that_waits_goes_with_the_weights_that_it_was_of(as_lr):
    decider = Training(as_lr).train_steps(0, 3).meta_lr._decider
    snapshot, place = decider.take_snapshot(), decider._state.validation
    decider.take_validation(1.0)
    decider.restore(snapshot)
    assert math.isnan(decider._state.validation)
    assert as_lr is float or decider._state.validation is place


@pytest.mark.parametrize("as_lr", AS_LR.values(), ids=AS_LR)
def test_a_state_is_read_into_the_place_that_graphs_read(as_lr):
    run, other = (Training(as_lr).train_steps(0, 3) for _ in range(2))
    run.meta_lr.validation(1.25)
    place = other.meta_lr._decider._state.validation
    other.meta_lr.load_state_dict(run.meta_lr.state_dict())
    assert float(other.meta_lr._decider._state.validation) == 1.25
    assert as_lr is float or other.meta_lr._decider._state.validation is place


@pytest.mark.parametrize("as_lr", AS_LR.values(), ids=AS_LR)
def test_a_state_of_version_6_knows_neither_a_validation_loss_nor_a_collapse(as_lr):
    policy = random_policy()
    nothing = [math.nan] * len(LOSSES)
    first, other = Training(as_lr, policy).train_steps(0, 5, losses=nothing), Training(as_lr, policy).train_steps(0, 5)
    other.meta_lr.validation(1.0)
    state = copy.deepcopy(first.meta_lr.state_dict()) | {"version": 6}
    del state["validation"], state["feature_state"]["validation"], state["guards"]["counts"]["collapse"]
    known = state["guard_state"]
    state["guard_state"] = {name: known[name] for name in ("low", "noise", "share", "rest", "counts")}
    state["guard_state"]["counts"] = known["counts"][:4]
    for part in ("model", "optimizer"):
        getattr(other, part).load_state_dict(copy.deepcopy(getattr(first, part).state_dict()))
    other.meta_lr.load_state_dict(state)
    assert math.isnan(other.meta_lr._decider._state.validation)
    assert other.train_steps(5, 12, losses=nothing).rates[5:] == first.train_steps(5, 12, losses=nothing).rates[5:]
