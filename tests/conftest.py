"""What every test shares: one thread, no hub, policies and a small problem."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # forking after OpenMP has run can hang
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

from benchmarks.denormals import flushes_denormals
from metalr import LRPolicy
from metalr.core.features import ANYTIME_FEATURES, EPOCH_FEATURES, FEATURES, ORIGIN_FEATURES
from metalr.core.validation_loss import VALIDATION_FEATURES

gc.disable()  # until all tests are imported
torch.set_num_threads(1)
settings.register_profile(
    "metalr", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("metalr")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests first that wait for SLURM and for restarts most of their time: others run beside them."""
    items.sort(key=lambda item: item.path.parent.name != "cluster")


def pytest_collection_finish() -> None:
    """Takes all that has been imported out of the garbage collector's sight.

    A collection, which Lightning and Hugging Face ask for in every fit, then takes milliseconds and not half a second.
    """
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def settled():
    """Takes out, too, what the modules of tests before this one have imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def denormals():
    """Finds the test that leaves the process rounding denormals to zero, under which others fail later."""
    yield
    if flushes_denormals():
        torch.set_flush_denormal(False)
        pytest.fail("denormals count as zero after this test")


def pytest_sessionfinish() -> None:
    """Lets the collector see it again, so that libraries can let go of it as they end."""
    gc.unfreeze()


def random_policy(seed: int = 0, anytime: bool = False, strength: float = 1.0, distances: bool = True) -> LRPolicy:
    """A policy that does something, as strongly as asked, and does not diverge: no weight is zero.

    Distances weigh little: they change by orders of magnitude, and a policy at random would let the rate do so, too.
    """
    features = ANYTIME_FEATURES if anytime else FEATURES
    policy = LRPolicy([name for name in features if name not in ORIGIN_FEATURES + EPOCH_FEATURES + VALIDATION_FEATURES])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        for parameter in policy.layers[-1].parameters():
            parameter.mul_(strength)
        policy = policy.widened(features) if distances else policy
        weight = policy.layers[0].weight
        noise = 0.01 * torch.randn(weight.shape, generator=generator)
        weight.copy_(torch.where(weight == 0.0, noise, weight))
    return policy.requires_grad_(False)


def validating_policy(seed: int = 0, anytime: bool = False, strength: float = 0.3) -> LRPolicy:
    """A policy at random that listens to the validation loss as much as to all else."""
    policy = random_policy(seed, anytime, strength)
    weight = policy.layers[0].weight
    noise = torch.randn(len(weight), len(VALIDATION_FEATURES), generator=torch.Generator().manual_seed(seed))
    weight[:, [policy.features.index(name) for name in VALIDATION_FEATURES]] = 0.3 * noise
    return policy


def constant_policy(output: float) -> LRPolicy:
    """A policy that gives the same action in every state, however large or not a number."""
    policy = LRPolicy()
    with torch.no_grad():
        policy.layers[-1].bias.fill_(output)
    return policy.requires_grad_(False)


@pytest.fixture
def policy() -> LRPolicy:
    return random_policy()


@pytest.fixture
def anytime_policy() -> LRPolicy:
    return random_policy(anytime=True)
