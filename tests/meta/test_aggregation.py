import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from metalr.meta import CommonDescent, Mean

SHAPES = st.tuples(st.integers(1, 12), st.integers(2, 6), st.integers(0, 1000))


def sampled(shape) -> torch.Tensor:
    batches, size, seed = shape
    return torch.randn(batches, size, generator=torch.Generator().manual_seed(seed))


def test_two_estimates_by_hand():
    """u = (0.6, 0.8), (-0.6, 0.8): U U' + 2 ridge I = ((1.5, 0.28), (0.28, 1.5)), so that both weigh alike."""
    gradients = torch.tensor([[6.0, 8.0], [-0.6, 0.8]])
    assert torch.allclose(CommonDescent(ridge=0.25).aggregate(gradients), torch.tensor([0.0, 1.0]))


def test_what_families_oppose_each_other_in_counts_little_and_what_they_share_much():
    """Three estimates go one way and one the other: their mean goes with the three, and raises the loss of the one."""
    gradients = torch.tensor([[10.0, 1.0], [10.0, 1.0], [10.0, 1.0], [-10.0, 1.0]])
    assert float(gradients[3] @ normalize(Mean().aggregate(gradients), dim=0)) < 0
    assert bool((gradients @ CommonDescent(ridge=1e-6).aggregate(gradients) > 0).all())


@given(SHAPES)
def test_neither_order_nor_lengths_matter_nor_estimates_that_are_zero(shape):
    gradients = sampled(shape)
    found = CommonDescent().aggregate(gradients)
    lengths = torch.linspace(0.01, 100.0, len(gradients))[:, None]
    others = torch.cat((torch.zeros(2, gradients.shape[1]), (lengths * gradients).flip(0)))
    assert torch.allclose(CommonDescent().aggregate(others), found, atol=1e-4)
    assert float(found.norm()) == pytest.approx(1.0, abs=1e-5)


@given(SHAPES)
def test_it_is_the_mean_of_the_units_times_the_inverse_of_their_second_moment(shape):
    """The primal form of what is solved in the dual one."""
    gradients, ridge = sampled(shape), 0.01
    unit = normalize(gradients.double())
    moment = unit.T @ unit / len(unit) + ridge * torch.eye(unit.shape[1]).double()
    expected = normalize(torch.linalg.solve(moment, unit.mean(0)), dim=0).float()
    assert torch.allclose(CommonDescent(ridge=ridge).aggregate(gradients), expected, atol=1e-4)


@given(SHAPES)
def test_a_large_ridge_gives_the_mean_of_the_units(shape):
    gradients = sampled(shape)
    expected = normalize(normalize(gradients).mean(0), dim=0)
    assert torch.allclose(CommonDescent(ridge=1e6).aggregate(gradients), expected, atol=1e-4)


def test_nothing_but_zeros_gives_zero():
    assert not CommonDescent().aggregate(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("wrong", [{"window": 0}, {"ridge": 0.0}, {"ridge": -1.0}, {"ridge": float("nan")}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}="):
        CommonDescent(**wrong)
