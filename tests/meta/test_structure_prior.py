"""A first guess of what trained weights ask for."""

import pytest
import torch

from metalr import LRPolicy
from metalr.core.features import FEATURES
from metalr.meta.ship import ship
from metalr.meta.structure_prior import STEP_FEATURES, expect_smaller_steps
from tests.conftest import random_policy


def test_structure_reads_as_larger_steps():
    """At a structure of 2 and a prior of 0.5, the action is that of random weights at steps a nat larger."""
    policy = LRPolicy(random_policy(distances=False).features).widened(FEATURES)
    before = random_policy(distances=False).widened(FEATURES)
    policy.load_state_dict(before.state_dict())
    expect_smaller_steps(policy, 0.5)
    features = torch.randn(5, len(FEATURES), generator=torch.Generator().manual_seed(0))
    features[:, FEATURES.index("weight_structure")] = 0.0
    assert torch.equal(policy(features), before(features))
    larger = features.clone()
    for name, gain in STEP_FEATURES.items():
        larger[:, FEATURES.index(name)] += gain
    features[:, FEATURES.index("weight_structure")] = 2.0
    assert torch.allclose(policy(features), before(larger), atol=1e-5)
    assert not torch.allclose(policy(features), before(features), atol=1e-3)


def test_a_policy_is_shipped_with_it(tmp_path):
    policy = random_policy()
    policy.learn_support(torch.rand(1000, len(FEATURES)))
    policy.card = {"seed": "0", "meta_steps": "1", "inner_steps": "1", "heldout": "0.1"}
    policy.save(tmp_path / "policy.safetensors")
    facts = {"command": "c", "commit": "0", "limits": "l", "weights": tmp_path}
    shipped = LRPolicy.load(ship(str(tmp_path / "policy.safetensors"), "mine", structure_prior=0.7, **facts))
    difference = next(shipped.parameters()) - next(policy.parameters())
    assert difference.abs().sum(0).nonzero().flatten().tolist() == [FEATURES.index("weight_structure")]
    assert shipped.card["structure_prior"] == "0.7"


def test_a_policy_that_does_not_read_it_is_refused():
    with pytest.raises(ValueError, match="does not read weight_structure"):
        expect_smaller_steps(LRPolicy(["step_size"]), 0.5)
