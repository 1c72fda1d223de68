import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from metalr import LRPolicy, shipped_policies
from metalr.features import FEATURES, SCHEMA_VERSION
from metalr.policy import apply_layers
from tests.conftest import random_policy


@pytest.fixture
def saved(policy, tmp_path):
    path = tmp_path / "p.safetensors"
    policy.card = {"seed": "3"}
    policy.save(path)
    return path


def rewrite(path, tensors=None, **metadata):
    """Writes the file again with some of its tensors or metadata changed."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        old = dict(file.metadata())
    save_file(load_file(path) | (tensors or {}), path, metadata={k: v for k, v in (old | metadata).items() if v})


def test_untrained_is_zero():
    x = torch.randn(5, len(FEATURES))
    assert torch.equal(LRPolicy()(x), torch.zeros(5))
    assert LRPolicy().size == len(FEATURES) * 64 + 64 + 64 * 32 + 32 + 32 + 1


def test_round_trip(policy, saved):
    loaded = LRPolicy.load(saved)
    x = torch.randn(7, len(FEATURES))
    assert torch.equal(loaded(x), policy(x))
    assert (loaded.features, loaded.hidden, loaded.card) == (policy.features, policy.hidden, {"seed": "3"})
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_population_computes_what_each_policy_does():
    policies = [random_policy(seed) for seed in range(3)]
    vectors = torch.stack([torch.nn.utils.parameters_to_vector(p.parameters()) for p in policies])
    x = torch.randn(3, len(FEATURES))
    together = apply_layers(policies[0].population(vectors), x)
    assert torch.allclose(together, torch.cat([p(x[i : i + 1]) for i, p in enumerate(policies)]), atol=1e-5)


def test_it_reads_its_own_columns():
    part = random_policy(horizon=False)
    x = torch.randn(4, len(FEATURES))
    changed = x.clone()
    changed[:, FEATURES.index("progress")] = 9.0
    assert torch.equal(part(x), part(changed))
    assert not part.needs_horizon
    assert random_policy().needs_horizon


def test_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*shipped: .*anytime.*default"):
        LRPolicy.load(tmp_path / "nowhere")


@given(data=st.data())
def test_a_damaged_file_is_refused(saved, data):
    whole = saved.read_bytes()
    if data.draw(st.booleans()):
        cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        position = data.draw(st.integers(0, 8 + int.from_bytes(whole[:8], "little") - 1))
        cut = whole[:position] + bytes([whole[position] ^ data.draw(st.integers(1, 255))]) + whole[position + 1 :]
    path = saved.with_name("damaged.safetensors")
    path.write_bytes(cut)
    try:
        loaded = LRPolicy.load(path)
    except ValueError as error:
        assert "damaged.safetensors" in str(error)  # noqa: PT017 - either outcome is right
    else:  # the byte was one of the card's, or white space
        assert loaded.features == random_policy().features


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "other"}, "not a metalr policy"),
        ({"format": ""}, "not a metalr policy"),
        (
            {"schema_version": str(SCHEMA_VERSION + 1)},
            f"schema {SCHEMA_VERSION + 1}, this metalr reads {SCHEMA_VERSION}",
        ),
        ({"features": "["}, "damaged header"),
        ({"features": json.dumps(["no_such"])}, "damaged header"),
        ({"hidden": json.dumps([8, 8])}, "promises"),
    ],
)
def test_another_schema_is_refused(saved, metadata, message):
    rewrite(saved, **metadata)
    with pytest.raises(ValueError, match=message):
        LRPolicy.load(saved)


def test_weights_that_are_not_finite_are_refused(saved):
    rewrite(saved, tensors={"layers.0.bias": torch.full((64,), float("nan"))})
    with pytest.raises(ValueError, match=r"layers\.0\.bias.*not finite"):
        LRPolicy.load(saved)


@pytest.mark.parametrize("bad", [{"features": ["nope"]}, {"features": []}, {"hidden": [0]}])
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LRPolicy(**bad)


def test_shipped_policies_load_and_have_a_card():
    assert {"default", "anytime"} <= set(shipped_policies())
    for name, horizon in (("default", True), ("anytime", False)):
        policy = LRPolicy.load(name)
        assert policy.needs_horizon is horizon
        assert {"command", "seed", "inner_steps"} <= set(policy.card)
        assert shipped_policies()[name].with_suffix(".md").is_file()
