"""What tells trained weights from random ones."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from metalr import LRPolicy, MetaLR
from metalr.core.features import FEATURES
from metalr.core.weight_structure import LOWEST, matrix_structure, structure_sums

INITIALISERS = {
    "kaiming uniform": nn.init.kaiming_uniform_,
    "xavier normal": nn.init.xavier_normal_,
    "truncated normal": nn.init.trunc_normal_,
    "small": lambda weight: nn.init.normal_(weight, std=1e-6),
}


def structure(*parameters: torch.Tensor) -> float:
    total, count = structure_sums(p.detach()[None] for p in parameters)
    return float(total / count.clamp(min=1.0))


@pytest.mark.parametrize("name", INITIALISERS)
@pytest.mark.parametrize("shape", [(64, 32), (40, 300), (600, 500), (32, 16, 3, 3)])
def test_weights_of_any_initialiser_have_none(name, shape):
    torch.manual_seed(0)
    draws = [structure(INITIALISERS[name](torch.empty(shape))) for _ in range(8)]
    assert abs(sum(draws) / 8) < 0.15
    assert max(map(abs, draws)) < 0.5


@given(st.floats(1e-3, 1e3), st.integers(0, 20))
def test_it_does_not_know_the_unit_or_the_orientation(unit, seed):
    weight = torch.randn(30, 20, generator=torch.Generator().manual_seed(seed)).exp()
    assert structure(unit * weight) == pytest.approx(structure(weight), abs=1e-4)
    assert structure(weight.T) == pytest.approx(structure(weight), abs=1e-4)


def test_golden_numbers():
    """Rows of +-1 and +-3: energies 1 and 9, a variance of 16 * 8/7; mean of w^2 5, of w^4 41.

    Chance makes (41/25 - 1) / n of it, in units of 5^2, with n = 10. Columns all have the same energy: the floor.
    """
    weight = torch.ones(8, 10)
    weight[::2] = 3.0
    rows = math.log((16 * 8 / 7 / 25) / ((41 / 25 - 1) / 10))
    assert float(matrix_structure(weight[None])) == pytest.approx((rows + LOWEST) / 2, abs=1e-5)


def test_matrices_count_by_their_elements_and_all_else_not_at_all():
    torch.manual_seed(0)
    weight = torch.randn(60, 60) * torch.linspace(0.1, 3, 60)
    alone = structure(weight)
    assert structure(weight, torch.randn(500), torch.zeros(60, 60)) == pytest.approx(alone / 2)
    assert structure(torch.randn(50)) == structure(torch.zeros(9, 9)) == structure(torch.ones(4, 5)) == 0.0


def test_a_network_that_was_trained_is_told_from_a_new_one():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    before = structure(*model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(300):
        x = torch.randn(64, 20)
        loss = (model(x)[:, 0] - x[:, 0] * x[:, 1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert structure(*model.parameters()) > before + 0.4


def policy() -> LRPolicy:
    return LRPolicy([*FEATURES])


def seen(meta_lr: MetaLR) -> float:
    return float(meta_lr.snapshot().features[0, FEATURES.index("weight_structure")])


def test_a_run_measures_its_first_weights_and_keeps_that_over_a_resume():
    torch.manual_seed(0)
    model = nn.Linear(30, 40)
    with torch.no_grad():
        model.weight.mul_(torch.linspace(0.5, 2.0, 40)[:, None])
    expected = 1.5 * structure(model.weight)

    def train(model, state=None):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        meta_lr = MetaLR(optimizer, total_steps=10, policy=policy())
        if state:
            meta_lr.load_state_dict(state)
        loss = model(torch.ones(2, 30)).square().mean()
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        return meta_lr

    first = train(model)
    assert seen(first) == pytest.approx(expected, abs=1e-5)
    other = copy.deepcopy(model)
    nn.init.normal_(other.weight)
    assert seen(train(other, first.state_dict())) == pytest.approx(expected, abs=1e-5)
