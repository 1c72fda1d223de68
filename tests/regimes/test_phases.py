"""One sets an optimizer's rates at a time: phases of a training, notebooks, schedulers that were thrown away."""

import copy
import gc
import warnings

import pytest
import torch
import torch.nn.functional as F

from metalr import MetaLR
from metalr.integrations.scheduler import MetaLRScheduler
from tests.problem import OPTIMIZERS, batches, make_model


class Phases:
    """A model and its optimizer, trained by one scheduler after the other."""

    def __init__(self, name: str = "sgd") -> None:
        self.model = make_model()
        self.optimizer = OPTIMIZERS[name](self.model.parameters())
        self.group = self.optimizer.param_groups[0]

    def backward(self, x, y):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        return loss

    def train(self, observe=lambda loss: None, after=lambda: None, steps: int = 8) -> list[float]:
        """Rates at each update."""
        rates = []
        for x, y in batches(steps):
            observe(self.backward(x, y))
            self.optimizer.step()
            rates.append(self.group["lr"])
            after()
        return rates

    def hooks(self) -> int:
        return len(self.optimizer._optimizer_step_pre_hooks) + len(self.optimizer._optimizer_step_post_hooks)


@pytest.mark.parametrize("name", ["sgd", "sgd_plain", "rmsprop"])
@pytest.mark.parametrize("end", ["deleted", "released"])
def test_a_scheduler_that_was_thrown_away_sets_no_rate(name, end, policy):
    run = Phases(name)
    first = MetaLRScheduler(run.optimizer, 8, policy)
    assert len(set(run.train(first.observe))) == 8
    if end == "deleted":
        del first
        gc.collect()
    else:
        first.release()
    assert run.hooks() == 0
    run.group["lr"] = run.group["initial_lr"] = 0.01
    second = torch.optim.lr_scheduler.ConstantLR(run.optimizer, factor=1.0, total_iters=1)
    assert run.train(after=second.step) == [0.01] * 8


@pytest.mark.parametrize(
    "kinds", [(MetaLRScheduler, MetaLRScheduler), (MetaLR, MetaLRScheduler), (MetaLRScheduler, MetaLR)]
)
def test_a_new_one_takes_the_place_of_the_old(kinds, policy):
    """Though the old one is still held, as in a notebook; its use is refused."""

    def give(one):
        return one.observe if isinstance(one, MetaLRScheduler) else one.step

    fresh, run = Phases("rmsprop"), Phases("rmsprop")
    old = kinds[0](run.optimizer, 8, policy)
    hooks = run.hooks()
    run.train(give(old), steps=3)
    run.group["lr"] = 1e-3
    fresh.model.load_state_dict(run.model.state_dict())
    fresh.optimizer.load_state_dict(copy.deepcopy(run.optimizer.state_dict()))
    fresh.group = fresh.optimizer.param_groups[0]
    new = kinds[1](run.optimizer, 8, policy)
    assert run.hooks() == hooks == 2
    assert run.train(give(new)) == fresh.train(give(kinds[1](fresh.optimizer, 8, policy)))
    with pytest.raises(RuntimeError, match="replaced by a newer one on the same optimizer"):
        give(old)(torch.ones(()))


def test_a_rate_that_something_else_sets_at_every_step_is_reported_once(policy):
    run = Phases()
    meta_lr = MetaLR(run.optimizer, 8, policy)
    other = torch.optim.lr_scheduler.StepLR(run.optimizer, 1, gamma=0.5)
    with pytest.warns(UserWarning, match="is set at every step by something beside MetaLR") as seen:
        run.train(meta_lr.step, after=other.step)
    assert len([w for w in seen if "something beside" in str(w.message)]) == 1


@pytest.mark.parametrize("as_lr", [float, torch.tensor])
def test_a_rate_that_is_written_once_goes_on_from_there(as_lr, policy):
    """A tenth of the present rate: all later rates are a tenth of what they would have been."""
    runs = Phases(), Phases()
    for run in runs:
        run.group["lr"] = as_lr(run.group["lr"])
        run.meta_lr = MetaLR(run.optimizer, 12, policy)
        run.train(run.meta_lr.step, steps=4)
    left, cut = runs
    before = float(cut.group["lr"])
    cut.group["lr"] = as_lr(before / 10)
    cut.meta_lr.step(cut.backward(*batches(1)[0]))
    assert cut.meta_lr.base_lrs == pytest.approx([rate / 10 for rate in left.meta_lr.base_lrs], rel=1e-6)
    assert float(cut.group["lr"]) == pytest.approx(cut.meta_lr.last_lr[0], rel=1e-6)


def test_a_group_added_with_a_present_rate_keeps_its_ratio_and_one_without_begins_as_the_others(policy):
    run = Phases()
    meta_lr = MetaLR(run.optimizer, 12, policy)
    run.train(meta_lr.step, steps=4)
    present = run.group["lr"]
    run.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": present / 10})
    run.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})
    run.train(meta_lr.step, steps=1)
    first, derived, default = meta_lr.base_lrs
    assert (derived, default) == pytest.approx((first / 10, first))


def test_nothing_is_reported_of_a_resumed_run(policy):
    run = Phases()
    meta_lr = MetaLR(run.optimizer, 12, policy)
    run.train(meta_lr.step, steps=4)
    states = meta_lr.state_dict(), run.optimizer.state_dict()
    run.train(meta_lr.step, steps=4)
    meta_lr.load_state_dict(states[0])
    run.optimizer.load_state_dict(states[1])
    run.group = run.optimizer.param_groups[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.train(meta_lr.step, steps=4)


def test_a_copy_of_the_optimizer_is_free(policy):
    """Copied or pickled, as by multiprocessing, it carries no hooks."""
    run = Phases("rmsprop")
    held = MetaLR(run.optimizer, 8, policy)
    assert run.hooks() == 2
    assert len(copy.deepcopy(run.optimizer)._optimizer_step_pre_hooks) == 0
    assert held.last_step == 0
