"""How often a run goes over its training data: given once, and read by a policy that has the features for it."""

import math

import pytest
import torch

from metalr import LRPolicy, MetaLR
from metalr.core.features import EPOCH_FEATURES, FEATURES, SCHEMA_VERSION
from metalr.integrations.scheduler import MetaLRScheduler

READS = ["step_size", "epochs", "epochs_known"]


def reading_policy() -> LRPolicy:
    """It lowers the rate by the number of epochs, where that is known."""
    policy = LRPolicy(["progress", *READS], hidden=())
    with torch.no_grad():
        policy.layers[0].weight.copy_(torch.tensor([[0.0, 0.0, -1.0, 0.0]]))
    return policy


def trained(steps_per_epoch, lr=0.1, policy=None) -> MetaLR:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=lr)
    meta_lr = MetaLR(optimizer, total_steps=200, policy=policy or reading_policy(), steps_per_epoch=steps_per_epoch)
    for _ in range(3):
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
    return meta_lr


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
def test_the_policy_reads_the_epochs_on_host_and_device(lr):
    """The third step has a span of 104, which is 26 epochs of 4 steps."""
    meta_lr = trained(4, lr)
    features = dict(zip(FEATURES, meta_lr.snapshot().features[0].tolist(), strict=True))
    assert [features[name] for name in EPOCH_FEATURES] == pytest.approx([math.log10(26), 1.0])
    assert meta_lr.log_multiplier < trained(50, lr).log_multiplier < trained(None, lr).log_multiplier


@pytest.mark.parametrize("steps", [104, 105, 10_000])
def test_less_than_an_epoch_is_one_however_much_data_there_is(steps):
    meta_lr = trained(steps)
    features = dict(zip(FEATURES, meta_lr.snapshot().features[0].tolist(), strict=True))
    assert [features[name] for name in EPOCH_FEATURES] == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("unknown", [None, math.inf])
def test_data_without_an_end_is_the_same_as_not_to_know(unknown):
    meta_lr = trained(unknown)
    features = dict(zip(FEATURES, meta_lr.snapshot().features[0].tolist(), strict=True))
    assert [features[name] for name in EPOCH_FEATURES] == [0.0, 0.0]


def test_a_policy_that_reads_none_is_not_moved_by_them():
    policy = LRPolicy(["progress", "step_size"], seed=1)
    assert not policy.reads_epochs
    assert trained(4, policy=policy).log_multiplier == trained(None, policy=policy).log_multiplier


@pytest.mark.parametrize("wrong", [0, -3, math.nan])
def test_a_length_that_is_none_is_refused(wrong):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    with pytest.raises(ValueError, match=r"steps_per_epoch=.*: give the optimizer steps of one pass"):
        MetaLR(optimizer, total_steps=10, steps_per_epoch=wrong)


def test_the_scheduler_passes_it_on():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=0.1)
    with pytest.raises(ValueError, match="steps_per_epoch=0"):
        MetaLRScheduler(optimizer, total_steps=10, steps_per_epoch=0)


def test_the_first_rates_are_those_of_the_first_step():
    """`set_first_rates` knows the length of an epoch, too."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    meta_lr = MetaLR(optimizer, total_steps=200, policy=reading_policy(), steps_per_epoch=2)
    weight.grad = torch.ones(3)
    meta_lr.set_first_rates()
    before = optimizer.param_groups[0]["lr"]
    meta_lr.step(1.0)
    assert optimizer.param_groups[0]["lr"] == before < 0.1


def test_a_file_of_the_schema_before_is_read():
    """The shipped policies are of schemas before the one that has the epochs."""
    assert SCHEMA_VERSION >= 4
    default = LRPolicy.load("default")
    assert default.widened([*default.features, *EPOCH_FEATURES]).reads_epochs
