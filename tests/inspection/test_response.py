"""Response curves against policies whose response is known."""

import numpy as np
import pytest
import torch

from metalr import LRPolicy
from metalr.inspection import responses
from metalr.inspection.response import support_states


def linear_policy(name: str, slope: float) -> LRPolicy:
    """Reads one feature alone: slope * feature, made of ReLU(x) - ReLU(-x)."""
    policy = LRPolicy(hidden=(2,))
    column = policy.features.index(name)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
        first, last = policy.layers
        first.weight[:, column] = torch.tensor([1.0, -1.0])
        last.weight[0] = torch.tensor([slope, -slope])
    return policy


def test_the_response_to_a_feature_is_the_policys_own():
    policy = linear_policy("loss_noise", 0.7)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(51, len(policy.features), generator=generator).clip(-3, 3)  # its deciles are values of it
    found = responses(policy, states, points=9, whole=True)
    column = policy.features.index("loss_noise")
    np.testing.assert_allclose(found.grid[column], np.linspace(-3, 3, 9), atol=1e-6)
    for curve in found.curves[column]:
        np.testing.assert_allclose(curve, np.tanh(0.7 * np.linspace(-3, 3, 9)), atol=1e-6)
    assert np.argmax(found.swings) == column
    others = np.delete(found.curves, column, axis=0)
    assert np.ptp(others, axis=2).max() < 1e-6  # flat in every feature that is not read
    middle = np.tanh(0.7 * np.quantile(states[:, column].numpy(), (0.1, 0.5, 0.9)))
    np.testing.assert_allclose(others[0, :, 0], middle, atol=1e-5)
    np.testing.assert_allclose(found.seen[column, 2], states[:, column].quantile(0.5), atol=1e-6)


def test_the_range_is_that_of_the_states():
    policy = linear_policy("progress", 1.0)
    states = torch.zeros(20, len(policy.features))
    states[:, 0] = torch.linspace(-1.0, 1.0, 20)
    grid = responses(policy, states).grid
    assert (grid[0, 0], grid[0, -1]) == pytest.approx((-1.3, 1.3))
    assert (grid[1, 0], grid[1, -1]) == pytest.approx((-0.15, 0.15))


def test_states_of_a_region_are_distributed_as_it_was():
    policy = LRPolicy()
    generator = torch.Generator().manual_seed(0)
    size = len(policy.features)
    mixing = 1.3 / size**0.5 * torch.randn(size, size, generator=generator)
    states = (torch.randn(4000, len(policy.features), generator=generator) @ mixing).clip(-3, 3)
    policy.learn_support(states)
    known = support_states(policy, 4000)
    kept = [i for i, name in enumerate(policy.features) if name != "optimizer"]
    assert float((known - states).mean(0)[kept].abs().max()) < 0.2
    spread = known.T.cov()[kept][:, kept], states.T.cov()[kept][:, kept]
    scale = spread[1].diag().sqrt()
    assert float(((spread[0] - spread[1]) / scale.outer(scale)).abs().max()) < 0.2
    assert set(known[:, policy.features.index("optimizer")].tolist()) <= {-1.0, 1.0}
    low, high = policy.support.ranges.unbind(1)
    assert bool(((known[:, kept] >= low[kept]) & (known[:, kept] <= high[kept])).all())


def test_without_a_region_states_are_anywhere():
    states = support_states(LRPolicy())
    assert -3.0 <= float(states.min()) < -2.9
    assert 2.9 < float(states.max()) <= 3.0


def test_states_of_another_shape_are_refused(policy):
    with pytest.raises(ValueError, match=r"states has shape \(0, 3\)"):
        responses(policy, torch.zeros(0, 3))
