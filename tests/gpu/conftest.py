"""The device of the tests that are marked `gpu`; METALR_GPU_TESTS_ON=cpu tries what a CPU can do of them."""

import os

import pytest
import torch

WHERE = os.environ.get("METALR_GPU_TESTS_ON", "cuda")
REASON = "needs a CUDA GPU: bash benchmarks/accelerator.sh right runs it on a machine that has one"


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if not item.get_closest_marker("gpu"):
            continue
        on_cpu = WHERE == "cpu" and not item.get_closest_marker("cuda_only")
        if not on_cpu and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason=REASON))


@pytest.fixture
def device() -> torch.device:
    return torch.device(WHERE)
