import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr.core.backend import HOST
from metalr.core.features import CLIP
from metalr.core.support import QUANTILE, Support


def region_of(states: torch.Tensor) -> Support:
    support = Support(states.shape[1] if states.dim() == 2 else 1)
    support.learn(states)
    return support


def correlated(count: int, seed: int = 0) -> torch.Tensor:
    """Two features that go together, and one that hardly moves."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = torch.randn(3, count, generator=generator)
    return torch.stack((a, a + 0.1 * b, 1.0 + 0.01 * c), dim=1).clamp(-CLIP, CLIP)


def test_the_bounds_hold_nearly_all_states_and_none_of_them_is_out_of_distribution():
    states = correlated(20_000)
    support = region_of(states)
    beyond = (states < support.ranges[:, 0]) | (states > support.ranges[:, 1])
    assert 0 < float(beyond.any(1).float().mean()) <= 2 * (1 - QUANTILE) * 3
    for seed in (0, 1):
        assert float((support.out_of_distribution_score(correlated(20_000, seed)) > 0).float().mean()) < 1e-3


def test_a_value_beyond_its_range_is_out_of_distribution():
    support = region_of(correlated(20_000))
    low, high = support.ranges[2]
    x = torch.tensor([[0.0, 0.0, float(high)], [0.0, 0.0, float(high) + 0.375], [0.0, 0.0, float(low) - 1.0]])
    assert support.out_of_distribution_score(x).tolist() == pytest.approx([0.0, 0.5, 1.0], abs=1e-4)


def test_ordinary_values_that_never_came_together_are_out_of_distribution():
    support = region_of(correlated(20_000))
    assert support.out_of_distribution_score(
        torch.tensor([[1.5, 1.5, 1.0], [1.5, -1.5, 1.0]])
    ).tolist() == pytest.approx([0, 1])


def test_nothing_is_out_of_distribution_everywhere():
    corners = CLIP * (2 * torch.randint(2, (50, 4)) - 1.0)
    assert torch.equal(Support(4).out_of_distribution_score(corners), torch.zeros(50))
    assert not Support(4).is_bounded
    assert region_of(correlated(2_000)).is_bounded


@given(x=st.lists(st.floats(-CLIP, CLIP, width=32), min_size=3, max_size=3))
def test_between_zero_and_one_in_both_backends(x):
    support = region_of(correlated(2_000))
    value = float(support.out_of_distribution_score(torch.tensor([x])))
    assert 0.0 <= value <= 1.0
    host = support.region(None).out_of_distribution_score(HOST, torch.tensor(x).double().numpy())
    assert host == pytest.approx(value, abs=1e-3)


def test_a_feature_that_never_moved_does_no_harm():
    states = torch.cat((correlated(2_000), torch.ones(2_000, 1)), dim=1)
    assert float((region_of(states).out_of_distribution_score(states) > 0).float().mean()) < 0.02


@pytest.mark.parametrize("states", [torch.zeros(10, 3), torch.zeros(2_000), torch.full((2_000, 3), float("nan"))])
def test_too_few_states_or_worse_are_refused(states):
    with pytest.raises(ValueError, match="1,000 or more finite"):
        region_of(states)
