"""What is measured of a step: norms, products and lower bounds of the distance, over groups with rates of their own."""

import math

import pytest
import torch
from torch import nn

from metalr.core.backend import HOST, TORCH
from metalr.core.direction import direction_of
from metalr.core.origin import Origin
from metalr.core.sample import ParameterSample
from metalr.core.signals import GradientSums, Signals, alignment, applied_size, distance_scale, measure

RATES = [0.1, 0.01]


def measured(signals: Signals) -> list[float]:
    """All but the validation loss and the length of an epoch, which are given and not measured."""
    assert signals.validation is None
    assert signals.steps_per_epoch is None
    return [float(part) for part in signals[:-2]]


class TwoGroups:
    """Parameters (3, 4) at a rate of 0.1 and (2,) at one of 0.01, and what is measured of them."""

    def __init__(self, kind, rates=RATES, **options) -> None:
        self.params = [nn.Parameter(torch.tensor(values)) for values in ([3.0, 4.0], [2.0])]
        groups = [{"params": [p], "lr": lr} for p, lr in zip(self.params, rates, strict=True)]
        self.rates = rates
        self.optimizer = kind(groups, **options)
        self.direction, self.sample, self.origin = (
            direction_of(self.optimizer),
            ParameterSample(self.optimizer),
            Origin(),
        )

    @torch.no_grad()
    def measure(self, first, second, on_host=True) -> Signals:
        for p, grad in zip(self.params, (first, second), strict=True):
            p.grad = None if grad is None else torch.tensor(grad)
        reading, rows = measure(1.5, self.optimizer, self.rates, self.direction, self.sample, self.origin)
        self.direction.remember(rows)
        return reading.signals(HOST if on_host else TORCH)


@pytest.mark.parametrize("on_host", [True, False])
def test_golden_numbers_of_two_groups_under_sgd(on_host):
    """An update is weighed with the rate of its own group, a gradient and a parameter with none."""
    run = TwoGroups(torch.optim.SGD, momentum=0.9)
    first = run.measure([1.0, 2.0], [2.0], on_host)
    # |s|^2 of the groups is 5 and 4: c = sqrt(0.01 * 5 + 0.0001 * 4) / (0.1 * 5 + 0.01 * 4).
    expected = Signals(
        loss=1.5,
        grad_norm=3.0,
        param_norm=math.sqrt(9 + 16 + 4),
        update_norm=math.sqrt(0.01 * 5 + 0.0001 * 4),
        alignment=0.0,
        optimizer=1.0,
        travel=0.0,
        origin_product=0.0,
        distance_scale=math.sqrt(0.0504) / 0.54,
        weight_structure=0.0,
    )
    assert measured(first) == pytest.approx(measured(expected))

    run.optimizer.step()  # u = (1, 2) and (2,): w = (2.9, 3.8) and (1.98,)
    second = run.measure([2.0, -1.0], [1.0], on_host)
    # s = (3, 1) and (3,), of squares 10 and 9.
    expected = Signals(
        loss=1.5,
        grad_norm=math.sqrt(6),
        param_norm=math.sqrt(2.9**2 + 3.8**2 + 1.98**2),
        update_norm=math.sqrt(0.0504),
        alignment=(0.1 * (2 - 2) + 0.01 * 2) / math.sqrt(6 * 0.0504),
        optimizer=1.0,
        travel=math.sqrt(0.01 + 0.04 + 0.0004),
        origin_product=2 * 0.1 - 1 * 0.2 + 1 * 0.02,
        distance_scale=math.sqrt(0.01 * 10 + 0.0001 * 9) / (0.1 * 10 + 0.01 * 9),
        weight_structure=0.0,
    )
    assert measured(second) == pytest.approx(measured(expected), abs=1e-6)


def test_golden_numbers_of_two_groups_under_adam():
    """Before the first update u is the gradient's sign; the distance is in the largest coordinate."""
    run = TwoGroups(torch.optim.Adam)
    first = run.measure([1.0, 2.0], [2.0])
    assert first.optimizer == -1.0
    assert first.update_norm == pytest.approx(math.sqrt(0.01 * 2 + 0.0001 * 1))
    # sqrt(0.01 * 2 + 0.0001) / (0.1 * |s|_1 of 3 + 0.01 * 2)
    assert first.distance_scale == pytest.approx(math.sqrt(0.0201) / 0.32)
    run.optimizer.step()  # u is (1, 1) and (1,), but for eps
    second = run.measure([2.0, -1.0], [1.0])
    assert second.update_norm == pytest.approx(math.sqrt(0.0201))
    assert second.alignment == pytest.approx((0.1 * (2 - 1) + 0.01 * 1) / math.sqrt(6 * 0.0201))
    assert second.origin_product == pytest.approx(2 * 0.1 - 1 * 0.1 + 1 * 0.01, rel=1e-5)
    assert second.travel == pytest.approx(math.sqrt(0.01 + 0.01 + 0.0001), rel=1e-5)


def test_what_climbs_moves_against_its_own_gradient():
    """`maximize` of one group: its update and its way are the other way round, the other group's are not."""
    run = TwoGroups(torch.optim.SGD, momentum=0.9)
    run.optimizer.param_groups[1]["maximize"] = True
    run.measure([1.0, 2.0], [2.0])
    run.optimizer.step()  # w = (2.9, 3.8) and (2.02,); torch's buffer of the second is -2
    second = run.measure([1.0, 2.0], [2.0])
    assert second.alignment == pytest.approx((0.1 * 5 + 0.01 * 4) / math.sqrt(9 * 0.0504))
    assert second.origin_product == pytest.approx(0.1 + 0.4 + 2 * 0.02)


@pytest.mark.parametrize("which", [0, 1])
def test_a_group_without_a_gradient_or_without_a_rate_counts_for_nothing(which):
    """Whichever it is: the other's numbers are those that it has alone."""
    gradients = [[1.0, 2.0], [2.0]]
    missing = [None if index == which else grad for index, grad in enumerate(gradients)]
    frozen = [0.0 if index == which else lr for index, lr in enumerate(RATES)]
    left = 1 - which
    one = TwoGroups(torch.optim.SGD).measure(*missing)
    two = TwoGroups(torch.optim.SGD, frozen).measure(*gradients)
    assert one == two
    assert one.grad_norm == pytest.approx(math.sqrt((5, 4)[left]))
    assert one.param_norm == pytest.approx(math.sqrt((25, 4)[left]))
    assert one.update_norm == pytest.approx(RATES[left] * math.sqrt((5, 4)[left]))


def test_no_gradient_at_all_is_refused():
    with pytest.raises(RuntimeError, match="call loss.backward\\(\\) before meta_lr.step"):
        TwoGroups(torch.optim.SGD).measure(None, None)


def test_a_first_step_that_was_skipped_leaves_adams_direction_the_sign():
    """Moments of zero, as a fused optimizer under a GradScaler has them then, say nothing of the update to come."""
    run = TwoGroups(torch.optim.Adam)
    run.measure([1.0, 2.0], [2.0])
    run.optimizer.step()
    for p in run.params:
        for name in ("exp_avg", "exp_avg_sq"):
            run.optimizer.state[p][name].zero_()
    assert run.measure([1.0, 2.0], [2.0]).update_norm == pytest.approx(math.sqrt(0.0201))


def test_a_gradient_that_is_not_finite_stays_out_of_their_sum():
    """|s|^2 of (1, 2) + (0, 1) and (2,) + (0,): what overflowed counts as zero, then and later."""
    run = TwoGroups(torch.optim.SGD)
    run.measure([1.0, 2.0], [2.0])
    assert not math.isfinite(run.measure([math.nan, 1.0], [math.inf]).grad_norm)
    run.measure([-math.inf, 0.0], [0.0])
    squares = (1 + 9, 4)
    expected = math.sqrt(0.01 * squares[0] + 0.0001 * squares[1]) / (0.1 * squares[0] + 0.01 * squares[1])
    assert run.measure([0.0, 0.0], [0.0]).distance_scale == pytest.approx(expected)


def test_on_a_sample_the_numbers_are_those_of_all(monkeypatch):
    """Of equal elements any sample has exactly the norms of all: each sampled one stands for several."""
    monkeypatch.setattr("metalr.core.sample.LEAST", 8)
    found = []
    for limit in (10**6, 300):
        weight = nn.Parameter(torch.full((30, 40), 2.0))
        optimizer = torch.optim.Adam([weight], lr=0.1)
        direction, sample, origin = direction_of(optimizer), ParameterSample(optimizer, limit), Origin()
        for _ in range(2):
            weight.grad = torch.full_like(weight, 0.5)
            with torch.no_grad():
                reading, _ = measure(1.0, optimizer, [0.1], direction, sample, origin)
            optimizer.step()
        found.append(reading.signals(HOST))
        assert (sample.groups[0].scale is None) == (limit > 300)
    assert measured(found[1]) == pytest.approx(measured(found[0]), rel=1e-5)
    assert found[0].grad_norm == pytest.approx(0.5 * math.sqrt(1200))
    assert found[0].travel == pytest.approx(0.1 * math.sqrt(1200), rel=1e-5)


def test_the_structure_of_groups_is_their_mean_by_elements():
    """One matrix with structure, one of equal size in another group without."""
    torch.manual_seed(0)
    striped = torch.randn(60, 40) * torch.linspace(0.2, 2.0, 60)[:, None]
    weights = [nn.Parameter(striped), nn.Parameter(torch.zeros(60, 40)), nn.Parameter(torch.ones(500))]
    found = []
    for some in (weights[:1], weights):
        optimizer = torch.optim.SGD([{"params": [p]} for p in some], lr=0.1)
        for p in some:
            p.grad = torch.ones_like(p)
        with torch.no_grad():
            sample = ParameterSample(optimizer)
            reading, _ = measure(1.0, optimizer, [0.1] * len(some), direction_of(optimizer), sample, Origin())
        found.append(reading.signals(HOST).weight_structure)
    assert found[0] > 0.8
    assert found[1] == pytest.approx(found[0] / 2)


def test_an_alignment_is_a_cosine_or_zero():
    numbers = [torch.tensor([x]) for x in (0.5, 0.0, 9.0, -9.0)]
    assert [float(alignment(TORCH, dot, torch.ones(1), torch.ones(1))) for dot in numbers] == [0.5, 0.0, 1.0, -1.0]
    assert float(alignment(TORCH, numbers[0], torch.tensor([2.0]), torch.tensor([4.0]))) == 0.0625
    assert float(alignment(TORCH, torch.zeros(1), torch.zeros(1), torch.ones(1))) == 0.0


def test_before_the_first_update_it_is_the_gradient_of_sgd_and_its_sign_of_others():
    for is_sgd, size in ((True, 2.0), (False, 7.0)):
        assert applied_size(HOST, is_sgd, False, 3.0, of_gradient=2.0, of_sign=7.0) == size
        assert applied_size(HOST, is_sgd, True, 3.0, of_gradient=2.0, of_sign=7.0) == 3.0


def test_an_update_of_zero_is_one_of_sgd_and_none_of_others():
    """Of runs with either optimizer, before their first update and after it, as of one run."""
    is_sgd, is_updated = torch.tensor([True, True, False, False]), torch.tensor([False, True, False, True])
    gradient, ones = torch.full((4,), 2.0), torch.full((4,), 7.0)
    sizes = applied_size(TORCH, is_sgd, is_updated, torch.zeros(4), of_gradient=gradient, of_sign=ones)
    assert sizes.tolist() == [2.0, 0.0, 7.0, 7.0]
    for flags, size in zip(zip(is_sgd.tolist(), is_updated.tolist(), strict=True), sizes.tolist(), strict=True):
        assert applied_size(HOST, *flags, 0.0, of_gradient=2.0, of_sign=7.0) == size


def test_a_bound_of_the_distance_by_hand():
    """On f = |w| from w_0 = 3 with steps of 1, s is 3 after three: products 0, 1, 2 sum to 3, and 3 / |s| is 1."""
    sums = GradientSums(*(torch.tensor([x]) for x in (0.1 * 9, 0.01 * 9, 0.1 * 3, 0.1)))
    sgd, adam = (distance_scale(TORCH, torch.tensor([is_sgd]), sums) for is_sgd in (True, False))
    assert float(sgd) == pytest.approx(1 / 3)
    assert float(adam) == pytest.approx(1 / 3)
    nothing = GradientSums(*torch.zeros(4, 1))
    assert float(distance_scale(TORCH, torch.tensor([True]), nothing)) == 0.0
