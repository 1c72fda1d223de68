"""The suite of long runs: that its tasks learn on real data, and that training images alone are augmented."""

import math
from pathlib import Path

import pytest
import torch

from benchmarks.heldout import data
from benchmarks.long.suite import SUITE, LongRun
from benchmarks.long.tasks import TASKS
from benchmarks.suites.runs import LOSS, Run
from tests.benchmarks.trained import trained
from tests.text import DATA, datasets_cache, needs_data

__all__ = ["datasets_cache"]

pytestmark = [pytest.mark.slow, needs_data]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_learns_on_real_data(task: str, tmp_path: Path):
    """A cosine lowers the held-out loss; no learned schedule is looked at here."""
    optimizer = TASKS[task].optimizers[0]
    run = LongRun(Run(task, optimizer, 40, "cosine", SUITE.usual[optimizer], 0), tmp_path, DATA)
    losses = trained(run).curves[LOSS][1]
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]


def test_training_images_are_crops_and_mirror_images_of_the_rows_and_validation_is_not_augmented():
    problem = TASKS["cifar10"].make(DATA, 0)
    image = problem.train.inputs[0][0]
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    crops = padded.unfold(1, 16, 1).unfold(2, 16, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    allowed = torch.cat([crops, crops.flip(-1)])
    found = torch.stack([problem.augment(image) for _ in range(200)])
    which = torch.cat([(allowed == each).flatten(1).all(1).nonzero()[0] for each in found])
    assert len(which.unique()) > 30  # of 50
    assert torch.equal(problem.val.inputs[0], data.cifar10(DATA).val.inputs[0])


def test_two_problems_of_a_seed_have_the_same_augmented_batches_whatever_is_evaluated():
    losses = []
    for evaluate in (True, False):
        problem = TASKS["cifar10"].make(DATA, 0)
        found = []
        for _ in range(3):
            found.append(float(problem.loss().detach()))
            if evaluate:
                problem.val_loss()
        losses.append(found)
    assert losses[0] == losses[1]
