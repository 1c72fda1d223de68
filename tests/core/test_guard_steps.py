"""Golden numbers of one step of the guards, worked out by hand."""

import math

import pytest
import torch

from metalr import Guards
from metalr.core.backend import TORCH
from metalr.core.features import FeatureState
from metalr.core.guards import DEFAULT_GUARDS, Guarded, GuardState, Proposal, protect
from metalr.core.lr_limits import LogBounds
from metalr.core.update_rule import Clock, clock


def number(value: float) -> torch.Tensor:
    return torch.tensor([value])


def protected(
    loss: float = 1.0,
    share: float = 0.5,
    rest: float = 9.0,
    fast_loss: float = 2.0,
    seen: float = 60.0,
    before: float = 0.3,
    after: float = 0.5,
    finite: bool = True,
    asked: bool = True,
    score: float | None = None,
    guards: Guards = DEFAULT_GUARDS,
    now: Clock | None = None,
    **bounds: float,
) -> Guarded:
    """One step at windows of 4, 8 and 20; the best so far is 1 of 5, its noise 0.1, that of now 0.2."""
    parts = {"low": 1.0, "noise": 0.1, "share": share, "rest": rest}
    state = GuardState.empty(1)._replace(**{name: number(value) for name, value in parts.items()})
    features = FeatureState.empty(1)._replace(
        seen=number(seen), variance=number(0.04), first_loss=number(5.0), best_loss=number(1.0)
    )
    features.averages[0, 0] = fast_loss
    yes, sure = torch.tensor([finite]), torch.tensor([asked])
    outside = None if score is None else number(score)
    step = Proposal(number(loss), number(before), number(after), yes, sure, outside, LogBounds(**bounds))
    return protect(TORCH, guards, state, features, now or clock(40, 100), step)


def test_the_recent_best_rises_to_the_loss_and_its_noise_with_it():
    """By a 20th of the way: 1 -> 1.05 of 2, 0.1 -> 0.105 of 0.2; a lower loss is the new best, with its noise."""
    state = protected(fast_loss=2.0).state
    assert [float(part) for part in (state.low, state.noise)] == pytest.approx([1.05, 0.105])
    state = protected(fast_loss=0.9).state
    assert [float(part) for part in (state.low, state.noise)] == pytest.approx([0.9, 0.2])
    state = protected(fast_loss=3.0, seen=1.0).state  # the first step is the best, whatever it was
    assert float(state.low) == 3.0


@pytest.mark.parametrize(("loss", "far"), [(6.2, True), (6.0, False)])
def test_far_is_a_descent_and_ten_noises_above_the_recent_best(loss, far):
    """1.05 + (5 - 1) + 10 * 0.105 = 6.1; the share moves by a quarter."""
    guarded = protected(loss=loss)
    assert float(guarded.state.share) == pytest.approx(0.5 + 0.125 if far else 0.5 - 0.125)
    assert float(guarded.log_multiplier) == pytest.approx(0.5)  # not yet for most of the window
    assert float(protected(loss=loss - 3.0, guards=Guards(divergence=0.25)).state.share) == pytest.approx(
        0.625 if far else 0.375
    )


def test_a_divergence_holds_the_rate_and_halves_it_once_in_a_middle_window():
    """A share of 0.75 becomes 0.8125 of the 0.75 that it takes; the middle window is 8 steps."""
    cut = protected(loss=9.0, share=0.75, rest=8.0)
    assert float(cut.log_multiplier) == pytest.approx(0.3 - math.log(2))
    assert float(cut.state.rest) == 0.0
    assert (bool(cut.interventions.divergence), cut.state.counts[:, 0].tolist()) == (True, [0, 0, 0, 1, 0])
    held = protected(loss=9.0, share=0.75, rest=7.0)
    assert float(held.log_multiplier) == pytest.approx(0.3)
    assert (float(held.state.rest), bool(held.interventions.divergence)) == (8.0, False)
    falling = protected(loss=9.0, share=0.75, rest=7.0, after=0.1)
    assert float(falling.log_multiplier) == pytest.approx(0.1)  # held, not raised
    just_below = protected(loss=9.0, share=0.66, rest=8.0)  # 0.745
    assert float(just_below.log_multiplier) == pytest.approx(0.5)
    back = protected(loss=1.0, share=1.0, rest=20.0)  # a share of 0.75 is not above it
    assert float(back.log_multiplier) == pytest.approx(0.5)


@pytest.mark.parametrize(("seen", "diverges"), [(50.0, False), (51.0, True)])
def test_the_first_fifty_steps_are_no_divergence(seen, diverges):
    guarded = protected(loss=9.0, share=0.9, rest=8.0, seen=seen)
    assert bool(guarded.interventions.divergence) == diverges


def test_a_step_that_is_not_finite_changes_only_the_rest():
    guarded = protected(loss=math.nan, finite=False, asked=False, share=0.9, after=0.3 - math.log(2))
    assert [float(part) for part in guarded.state[:4]] == pytest.approx([1.0, 0.1, 0.9, 10.0])
    assert float(guarded.log_multiplier) == pytest.approx(0.3 - math.log(2))
    assert guarded.state.counts[:, 0].tolist() == [1, 0, 0, 0, 0]
    off = protected(loss=math.nan, finite=False, asked=False, after=-5.0, guards=Guards(non_finite=False))
    assert float(off.log_multiplier) == pytest.approx(0.3)
    assert off.state.counts[:, 0].tolist() == [0, 0, 0, 0, 0]


def test_out_of_distribution_the_change_fades_before_the_limits():
    guarded = protected(score=0.25, before=0.0, after=2.0, guards=Guards(max_multiplier=math.exp(1.2)))
    assert float(guarded.log_multiplier) == pytest.approx(1.2)  # of 1.5
    assert guarded.state.counts[:, 0].tolist() == [0, 1, 1, 0, 0]
    refused = protected(score=0.25, asked=False, before=0.0, after=-0.7)
    assert float(refused.log_multiplier) == pytest.approx(-0.7)  # the policy had no say that could fade
    assert not bool(refused.interventions.out_of_distribution)


def test_the_limits_of_the_rate_are_those_of_the_multiplier_times_the_reference():
    """At ref = 0.5005, a rate of at most 0.25 and at least 0.1 times the initial one."""
    half = clock(50, 100)
    reference = math.log(0.001 + 0.999 * 0.5)
    high = protected(after=3.0, now=half, high=math.log(0.25))
    assert float(high.log_multiplier) == pytest.approx(math.log(0.25) - reference)
    low = protected(after=-5.0, now=half, low=math.log(0.1))
    assert float(low.log_multiplier) == pytest.approx(math.log(0.1) - reference)
    between = protected(after=0.4, now=half, low=-9.0, high=9.0)
    assert (float(between.log_multiplier), bool(between.interventions.limit)) == (pytest.approx(0.4), False)
    least = protected(after=-9.0, guards=Guards(min_multiplier=math.exp(-2.0)))
    assert float(least.log_multiplier) == pytest.approx(-2.0)
    assert bool(least.interventions.limit)
