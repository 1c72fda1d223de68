"""Optimizers that move the parameters beside their update: what counts is the change over their own step."""

import pytest
import torch
import torch.nn.functional as F

from metalr import MetaLR, MetaLRCallback
from metalr.integrations.scheduler import MetaLRScheduler
from tests.fit import BATCHES, Module, loader, make_trainer
from tests.problem import batches, make_model
from tests.regimes.optimizers import ClosureSAM, PassSAM

STEPS = 12


def backward(model, optimizer, x, y):
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss


class Watched:
    """A run that notes u as read by MetaLR, and the change of the parameters over each update, taken beside it."""

    def __init__(self, make, policy) -> None:
        self.model = make_model().double()
        self.optimizer = make(self.model.parameters())
        self.meta_lr = MetaLR(self.optimizer, STEPS, policy)
        self.read, self.applied = [], []
        gather = self.meta_lr._direction.read

        def read(index, rows):
            u = gather(index, rows)
            self.read.append(None if u is None else u.clone())
            return u

        self.meta_lr._direction.read = read

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.model.parameters()])

    def check(self) -> None:
        """Each decision but the first read the update before it."""
        assert self.read[0] is None
        assert len(self.read) == len(self.applied) == self.meta_lr.last_step == STEPS
        for u, applied in zip(self.read[1:], self.applied, strict=False):
            assert torch.allclose(u, applied, rtol=1e-6, atol=1e-9)

    def note(self, before) -> None:
        self.applied.append((before - self.weights()) / self.optimizer.param_groups[0]["lr"])


BASES = {
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=1e-3),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("where", ["first gradient", "second gradient"])
def test_two_passes_in_a_loop(base, where, policy):
    """Decided at the weights or at the perturbed ones, with the wrapper's step or its base's."""
    run = Watched(lambda p: PassSAM(p, BASES[base]), policy)
    for x, y in batches(STEPS):
        before = run.weights()
        loss = backward(run.model, run.optimizer, x.double(), y)
        if where == "first gradient":
            run.meta_lr.step(loss)
        run.optimizer.first_step()
        loss = backward(run.model, run.optimizer, x.double(), y)
        if where == "second gradient":
            run.meta_lr.step(loss)
        run.optimizer.second_step()
        run.note(before)
    run.check()


@pytest.mark.parametrize("base", BASES)
def test_weight_noise_between_the_steps(base, policy):
    """Noise that is added through `.data`, which torch's version counters do not see, and taken away at the update."""
    run = Watched(BASES[base], policy)
    generator = torch.Generator().manual_seed(0)
    for x, y in batches(STEPS):
        before = run.weights()
        noise = [0.1 * torch.randn(p.shape, generator=generator) for p in run.model.parameters()]
        for p, e in zip(run.model.parameters(), noise, strict=True):
            p.data.add_(e)
        run.meta_lr.step(backward(run.model, run.optimizer, x.double(), y))
        for p, e in zip(run.model.parameters(), noise, strict=True):
            p.data.sub_(e)
        run.optimizer.step()
        run.note(before)
    run.check()


def test_extrapolation_before_the_step(policy):
    """Extragradient: the gradient is that of a look-ahead point, and the update starts from the weights."""
    run = Watched(BASES["rmsprop"], policy)
    for x, y in batches(STEPS):
        before = run.weights()
        backward(run.model, run.optimizer, x.double(), y)
        kept = [p.detach().clone() for p in run.model.parameters()]
        with torch.no_grad():
            for p in run.model.parameters():
                p.sub_(0.1 * p.grad)
        run.meta_lr.step(backward(run.model, run.optimizer, x.double(), y))
        with torch.no_grad():
            for p, w in zip(run.model.parameters(), kept, strict=True):
                p.copy_(w)
        run.optimizer.step()
        run.note(before)
    run.check()


@pytest.mark.parametrize("decides", ["in the closure", "before the step", "both"])
def test_a_closure_that_is_called_again_is_one_step(decides, policy):
    run = Watched(lambda p: ClosureSAM(p, lr=0.1, momentum=0.9), policy)
    calls = 0
    for x, y in batches(STEPS):
        before = run.weights()

        def closure(x=x, y=y):
            nonlocal calls
            calls += 1
            loss = backward(run.model, run.optimizer, x.double(), y)
            if decides != "before the step":
                run.meta_lr.step(loss)
            return loss

        if decides != "in the closure":
            run.meta_lr.step(backward(run.model, run.optimizer, x.double(), y))
        run.optimizer.step(closure)
        run.note(before)
    assert calls == 2 * STEPS
    run.check()


def test_the_scheduler_decides_once_a_step(policy):
    model = make_model()
    closed, passing = ClosureSAM(model.parameters(), lr=0.1), PassSAM(model.parameters(), BASES["sgd"])
    schedulers = [MetaLRScheduler(closed, STEPS, policy), MetaLRScheduler(passing, STEPS, policy)]
    for x, y in batches(STEPS):
        closed.step(lambda x=x, y=y: backward(model, closed, x, y))
        schedulers[1].observe(backward(model, passing, x, y))
        passing.first_step()
        backward(model, passing, x, y)
        passing.second_step()
    assert [scheduler.meta_lr.last_step for scheduler in schedulers] == [STEPS, STEPS]


def test_a_fit_has_one_decision_a_step_and_learns(tmp_path):
    """A sharpness-aware fit whose rate fell to nothing, when each call of the closure was a step."""

    class Sharp(Module):
        def configure_optimizers(self):
            return ClosureSAM(self.parameters(), lr=0.1, momentum=0.9)

    module, callback = Sharp(), MetaLRCallback()
    make_trainer(tmp_path, callback, max_epochs=20).fit(module, loader())
    assert callback.controllers[0].last_step == 20 * BATCHES
    x, y = (torch.cat(parts) for parts in zip(*batches(BATCHES), strict=True))
    assert F.cross_entropy(module.model(x), y).item() < 0.6  # log(4) = 1.39 is what chance gives


def test_a_step_that_ends_by_an_exception_leaves_nothing_behind(policy):
    run = Watched(lambda p: ClosureSAM(p, lr=0.1), policy)
    for index, (x, y) in enumerate(batches(STEPS)):

        def closure(x=x, y=y, fails=False):
            if fails:
                raise KeyboardInterrupt
            loss = backward(run.model, run.optimizer, x.double(), y)
            run.meta_lr.step(loss)
            return loss

        if index == 5:
            with pytest.raises(KeyboardInterrupt):
                run.optimizer.step(lambda call=closure: call(fails=True))
        before = run.weights()
        run.optimizer.step(closure)
        run.note(before)
    run.check()


def test_outside_of_a_step_each_call_decides(policy):
    """The loop may leave an update out; the last update stays the one that was taken."""
    run = Watched(BASES["rmsprop"], policy)
    x, y = batches(1)[0]
    for _ in range(3):
        run.meta_lr.step(backward(run.model, run.optimizer, x.double(), y))
        run.optimizer.step()
    run.meta_lr.step(backward(run.model, run.optimizer, x.double(), y))
    run.meta_lr.step(backward(run.model, run.optimizer, x.double(), y))
    assert run.meta_lr.last_step == 5
    assert torch.equal(run.read[-1], run.read[-2])
