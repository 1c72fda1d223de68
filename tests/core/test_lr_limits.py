"""A rate stays within what its user allows, in the optimizer's own unit, and groups keep their ratios."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr import MetaLR
from metalr.core.lr_limits import UNLIMITED, LRLimits
from tests.conftest import random_policy
from tests.problem import batches, make_model

positive = st.floats(1e-6, 1e3)


@given(base=st.lists(positive, min_size=1, max_size=4), down=st.floats(0.01, 1.0), up=st.floats(1.0, 100.0))
def test_no_group_leaves_its_limits_and_one_comes_to_it(base, down, up):
    low, high = LRLimits([down * rate for rate in base], [up * rate for rate in base]).bounds(base)
    assert (math.exp(low), math.exp(high)) == pytest.approx((down, up))


def test_the_group_that_is_nearest_to_its_limit_holds_the_others_back():
    assert math.exp(LRLimits(max_lr=1e-3).bounds([1e-4, 1e-5]).high) == pytest.approx(10.0)
    assert math.exp(LRLimits(min_lr=1e-6).bounds([1e-4, 1e-5, 0.0]).low) == pytest.approx(0.1)
    assert LRLimits().bounds([1.0]) is UNLIMITED


@pytest.mark.parametrize("as_lr", [float, torch.tensor])
def test_a_run_stays_within_them_and_goes_to_them(as_lr):
    model = make_model()
    groups = [{"params": model[0].parameters(), "lr": as_lr(0.01)}, {"params": model[2].parameters(), "lr": as_lr(0.1)}]
    optimizer = torch.optim.SGD(groups)
    meta_lr = MetaLR(optimizer, 40, random_policy(strength=0.5), min_lr=0.004, max_lr=0.2)
    free = MetaLR(torch.optim.SGD(make_model().parameters(), lr=as_lr(0.01)), 40, meta_lr.policy)
    rates = []
    for x, y in batches(40):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        rates.append(meta_lr.last_lr)
    assert free.guard_counts["limit"] == 0
    assert min(map(min, rates)) == pytest.approx(0.004, rel=1e-5)
    assert max(map(max, rates)) <= 0.2 * (1 + 1e-5)
    assert all(second / first == pytest.approx(10.0) for first, second in rates)
    assert meta_lr.guard_counts["limit"] > 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"max_lr": 0.01}, "max_lr=0.01 is below the initial rate 0.1 of param_groups"),
        ({"min_lr": 1.0}, "min_lr=1.0 is above the initial rate 0.1 of param_groups"),
        ({"max_lr": 0.0}, "max_lr=0.0: give a finite rate above 0"),
        ({"min_lr": math.nan}, "min_lr=nan: give a finite rate above 0"),
        ({"max_lr": "1"}, "max_lr=1: give a finite rate above 0"),
        ({"min_lr": np.array([0.01, 0.01])}, r"min_lr=\[0.01 0.01\]: give a finite rate above 0"),
        ({"max_lr": []}, "is for 0 parameter groups, there are more"),
    ],
)
def test_limits_that_make_no_sense_are_refused(bad, message, policy):
    with pytest.raises(ValueError, match=message):
        MetaLR(torch.optim.SGD(make_model().parameters(), lr=0.1), 10, policy, **bad)
