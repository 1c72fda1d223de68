import pytest
import torch

from metalr.schedules import SHAPES, HorizonLR
from tests.problem import make_model


def rates(shape: str, steps: int = 8) -> list[float]:
    optimizer = torch.optim.SGD(make_model().parameters(), lr=2.0)
    scheduler = HorizonLR(optimizer, shape, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_golden_numbers():
    assert rates("constant") == [2.0] * 8
    assert rates("step") == pytest.approx([2.0] * 4 + [0.2] * 2 + [0.02] * 2)
    assert rates("linear") == pytest.approx([2.0 * (1 - t / 8) for t in range(8)])


def test_cosine_is_torchs():
    optimizer = torch.optim.SGD(make_model().parameters(), lr=2.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    expected = []
    for _ in range(8):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert rates("cosine") == pytest.approx(expected)


def test_bad_arguments_are_named():
    optimizer = torch.optim.SGD(make_model().parameters(), lr=1.0)
    with pytest.raises(ValueError, match="shape='nope'.*cosine"):
        HorizonLR(optimizer, "nope", 3)
    with pytest.raises(ValueError, match="total_steps=0"):
        HorizonLR(optimizer, "cosine", 0)
    scheduler = HorizonLR(optimizer, "cosine")
    optimizer.step()
    with pytest.raises(ValueError, match="needs total_steps"):
        scheduler.step()
    assert set(SHAPES) == {"constant", "step", "cosine", "linear"}


def test_a_warm_up_rises_over_its_share_of_the_run_and_the_shape_takes_the_rest():
    optimizer = torch.optim.SGD(make_model().parameters(), lr=2.0)
    scheduler = HorizonLR(optimizer, "linear", 20, warmup=0.2)
    seen = []
    for _ in range(20):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])  # four steps rise, and then it is at 1
    assert seen[4:] == pytest.approx([2.0 * (1 - t / 16) for t in range(16)])
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_a_horizon_that_is_given_late_sets_the_first_rate_of_the_warm_up():
    optimizer = torch.optim.SGD(make_model().parameters(), lr=2.0)
    scheduler = HorizonLR(optimizer, "cosine", warmup=0.1)
    scheduler.total_steps = 30
    assert optimizer.param_groups[0]["lr"] == scheduler.get_last_lr()[0] == pytest.approx(0.5)


@pytest.mark.parametrize("warmup", [-0.1, 1.0, float("nan")])
def test_a_warm_up_out_of_range_is_refused(warmup: float):
    with pytest.raises(ValueError, match=f"warmup={warmup}: give the share"):
        HorizonLR(torch.optim.SGD(make_model().parameters(), lr=2.0), "linear", 10, warmup=warmup)
