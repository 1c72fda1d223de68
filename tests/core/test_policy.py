import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from metalr import LRPolicy, shipped_policies
from metalr.core import policy_file
from metalr.core.backend import HOST, TORCH
from metalr.core.features import CLIP, FEATURES, OLDEST_SCHEMA, SCHEMA_VERSION
from metalr.core.policy_file import MAX_BYTES, PolicyFile
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
    together = policies[0].population(vectors).action(TORCH, x)
    assert torch.allclose(together, torch.cat([p(x[i : i + 1]) for i, p in enumerate(policies)]), atol=1e-5)


def test_it_reads_its_own_columns():
    part = random_policy(anytime=True)
    x = torch.randn(4, len(FEATURES))
    changed = x.clone()
    changed[:, FEATURES.index("progress")] = 9.0
    assert torch.equal(part(x), part(changed))
    assert part.anytime
    assert not random_policy().anytime


def test_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*shipped: .*anytime.*default"):
        LRPolicy.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "other"}, "not a metalr policy"),
        ({"format": ""}, "not a metalr policy"),
        (
            {"schema_version": str(SCHEMA_VERSION + 1)},
            f"schema {SCHEMA_VERSION + 1}, this metalr reads {SCHEMA_VERSION}",
        ),
        ({"schema_version": str(OLDEST_SCHEMA - 1)}, f"schema {OLDEST_SCHEMA - 1}, this metalr reads"),
        ({"features": "["}, "damaged header"),
        ({"features": json.dumps(["no_such"])}, "damaged header"),
        ({"hidden": json.dumps([8, 8])}, "promises"),
        ({"hidden": json.dumps([10**12])}, "promises"),  # nothing is allocated on a header's word
        ({"hidden": json.dumps([64, True])}, "damaged header"),
        ({"hidden": "9" * 5000}, "damaged header"),
        ({"features": "[" * 100_000}, "damaged header"),
        ({"features": json.dumps([FEATURES[0]] * len(FEATURES))}, "damaged header"),
        ({"card": json.dumps([1])}, "damaged header"),
        ({"card": json.dumps({"seed": "4"})}, "does not match its checksum"),
        ({"checksum": "0" * 64}, "does not match its checksum"),
        ({"checksum": ""}, "no checksum"),
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool])
def test_weights_of_another_type_are_refused(saved, dtype):
    rewrite(saved, tensors={"layers.1.weight": torch.ones(32, 64).to(dtype)})
    with pytest.raises(ValueError, match=r"layers\.1\.weight.*not finite float32"):
        LRPolicy.load(saved)


def test_a_changed_weight_is_noticed(saved):
    weight = load_file(saved)["layers.2.weight"]
    rewrite(saved, tensors={"layers.2.weight": weight.nextafter(torch.tensor(9.0))})
    with pytest.raises(ValueError, match="does not match its checksum"):
        LRPolicy.load(saved)


def test_a_file_without_a_checksum_can_be_written_again_with_one(saved, policy):
    rewrite(saved, checksum="")
    LRPolicy.load(saved, verify=False).save(saved)
    assert LRPolicy.load(saved).fingerprint() == policy.fingerprint()


def test_a_file_of_another_size_is_not_even_read(saved):
    with saved.open("r+b") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: it takes no space
    with pytest.raises(ValueError, match="a policy has"):
        LRPolicy.load(saved)


def damage(whole: bytes, rng: random.Random) -> bytes:
    """One of the ways in which a file comes to be not what was written."""
    header = 8 + int.from_bytes(whole[:8], "little")
    data = bytearray(whole)
    kind = rng.randrange(9)
    if kind == 0:  # cut short
        return bytes(data[: rng.randrange(len(data))])
    if kind == 1:  # one flipped bit, anywhere
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 2:  # one flipped bit of the header, which is a smaller part of the file
        data[rng.randrange(header)] ^= 1 << rng.randrange(8)
    elif kind == 3:  # a block of noise
        start, length = rng.randrange(len(data)), rng.randrange(1, 64)
        data[start : start + length] = rng.randbytes(length)
    elif kind == 4:  # a lost block
        start = rng.randrange(len(data))
        del data[start : start + rng.randrange(1, 512)]
    elif kind == 5:  # another length of the header, up to a huge one
        data[:8] = rng.choice([rng.randrange(2**16), 2**31, 2**62, 2**64 - 1]).to_bytes(8, "little")
    elif kind == 6:  # a header that is some other JSON, or none
        junk = rng.choice([b"{}", b"[]", b"null", b"[" * 5000, b'{"a":' * 500, b"\xff\xfe{", b'{"__metadata__": 7}'])
        return len(junk).to_bytes(8, "little") + junk + bytes(data[header:])
    elif kind == 7:  # a number in the header becomes another: shapes, offsets, versions
        digits = [i for i in range(8, header) if chr(data[i]).isdigit()]
        data[rng.choice(digits)] = ord(rng.choice("0123456789"))
    else:  # bytes after the end
        data += rng.randbytes(rng.randrange(1, 100))
    return bytes(data)


@pytest.mark.slow
def test_four_thousand_damaged_files_end_in_an_error_each(saved):
    """Never another exception, a crash, or a policy that is not the one that was saved."""
    whole, rng = saved.read_bytes(), random.Random(0)
    path = saved.with_name("damaged.safetensors")
    features = torch.randn(64, len(FEATURES), generator=torch.Generator().manual_seed(0))
    outputs, loaded = LRPolicy.load(saved)(features), 0
    for _ in range(4000):
        data = damage(whole, rng)
        path.write_bytes(data)
        try:
            policy = LRPolicy.load(path)
        except ValueError as error:
            assert "damaged.safetensors" in str(error)  # noqa: PT017 - either outcome is right
        else:  # the digit became itself, or the damage is outside of all that a policy is
            loaded += 1
            assert torch.equal(policy(features), outputs)
            assert policy.fingerprint() == LRPolicy.load(saved).fingerprint()
    assert loaded < 200


def test_the_support_is_in_the_file(policy, tmp_path):
    assert torch.equal(policy.support.ranges, torch.tensor([[-CLIP, CLIP]] * len(FEATURES)))
    before = policy.fingerprint()
    policy.learn_support(0.3 * torch.randn(5000, len(FEATURES), generator=torch.Generator().manual_seed(1)))
    assert policy.fingerprint() != before
    policy.save(tmp_path / "p.safetensors")
    loaded = LRPolicy.load(tmp_path / "p.safetensors")
    stored = loaded.support.state_dict()
    assert set(stored) == {"ranges", "centre", "whitener", "mahalanobis_radius"}
    assert all(torch.equal(part, stored[name]) for name, part in policy.support.state_dict().items())
    assert loaded.support.is_bounded


def test_a_file_of_before_is_read(policy, tmp_path):
    """One that names the Mahalanobis radius as metalr 0.1.0 did, and one without any support."""
    policy.learn_support(0.3 * torch.randn(5000, len(FEATURES), generator=torch.Generator().manual_seed(1)))
    tensors = policy.state_dict()
    old = {("support.reach" if "radius" in name else name): part for name, part in tensors.items()}
    bare = {name: part for name, part in tensors.items() if not name.startswith("support.")}
    for name, content in (("old", old), ("bare", bare)):
        policy_file.write(tmp_path / name, PolicyFile(policy.features, policy.hidden, {}, content))
    assert LRPolicy.load(tmp_path / "old").fingerprint() == policy.fingerprint()
    assert not LRPolicy.load(tmp_path / "bare").support.is_bounded


def test_the_function_is_one_for_many_runs_and_for_one_on_the_host(policy):
    x = torch.randn(6, len(FEATURES))
    function = policy.frozen_function(None)
    found = [function.action(HOST, row) for row in x.double().numpy()]
    assert found == pytest.approx(policy(x).tolist(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("bad", [{"features": ["nope"]}, {"features": []}, {"hidden": [0]}])
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LRPolicy(**bad)


def test_shipped_policies_load_and_have_a_card():
    for name, anytime in (("default", False), ("anytime", True), ("boosting", False), ("boosting_anytime", True)):
        policy = LRPolicy.load(name)
        assert policy.anytime is anytime
        assert {"command", "seed", "inner_steps"} <= set(policy.card)
        assert shipped_policies()[name].with_suffix(".md").is_file()


def test_a_widened_policy_reads_more_and_acts_the_same():
    narrow = random_policy(strength=1.0)
    few = LRPolicy(FEATURES[3:9], narrow.hidden)
    few.load_state_dict(
        {k: v[:, 3:9] if k == "layers.0.weight" else v for k, v in narrow.state_dict().items() if "support" not in k},
        strict=False,
    )
    wide = few.widened(FEATURES)
    x = torch.randn(5, len(FEATURES))
    assert torch.allclose(few(x), wide(x), atol=1e-6)
    assert float(few(x).abs().max()) > 0
    assert wide.features == FEATURES
    assert not wide.support.is_bounded
