import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr.core.backend import TORCH
from metalr.core.features import ANYTIME_FEATURES, CLIP, FEATURES, HORIZON_FEATURES, FeatureState, observe
from metalr.core.signals import Signals
from metalr.core.update_rule import clock

values = st.floats(-1e4, 1e4, width=32)
positive = st.floats(2.0**-13, 2.0**13, width=32)
step_signals = st.tuples(values, positive, positive, positive, st.floats(-1, 1, width=32))


def make_signals(
    loss, grad=1.0, param=10.0, update=0.1, cosine=0.5, kind=1.0, travel=0.5, product=0.2, scale=0.25, structure=0.5
) -> Signals:
    numbers = (loss, grad, param, update, cosine, kind, travel, product, scale, structure)
    return Signals(*(torch.tensor([float(v)]) for v in numbers))


def run(losses, total=100, **signals):
    state, rows = FeatureState.empty(1), []
    for t, loss in enumerate(losses):
        state, features, _ = observe(TORCH, state, make_signals(loss, **signals), torch.zeros(1), clock(t, total))
        rows.append(features)
    return torch.cat(rows)


def column(rows, name):
    return rows[:, FEATURES.index(name)]


def test_golden_numbers_of_the_first_step():
    row = run([2.3])[0]
    expected = dict.fromkeys(FEATURES, 0.0) | {
        "progress": -1.0,
        "early": 1.0,
        "step_size": 0.4 * (math.log(0.1 / 10) + 6),
        "step_size_reference": 0.4 * (math.log(0.1 / 10) + 6),
        "alignment_fast": 1.5,
        "alignment_middle": 2.0,
        "alignment_certainty": 3.0,
        "predicted_change": CLIP,  # no noise has been seen yet
        "optimizer": 1.0,
        "travel": 0.4 * (math.log(0.5 / 10) + 5),
        "weight_structure": 1.5 * 0.5,
    }
    assert dict(zip(FEATURES, row.tolist(), strict=True)) == pytest.approx(expected, abs=1e-5)


def test_a_plain_mean_until_the_window_is_full():
    state = FeatureState.empty(1)
    for t, loss in enumerate((4.0, 2.0, 0.0)):
        state, _, _ = observe(TORCH, state, make_signals(loss), torch.zeros(1), clock(t, 100))
    assert state.averages[:, 0, 0].tolist() == pytest.approx([2.0, 2.0, 2.0])
    assert float(state.best_loss) == pytest.approx(2.0)
    assert float(state.first_loss) == 4.0


def test_trends_have_their_signs():
    falling, rising = run([3 - 0.02 * t for t in range(60)]), run([3 + 0.02 * t for t in range(60)])
    for name in ("loss_trend_fast", "loss_trend_slow"):
        assert float(column(falling, name)[-1]) < 0 < float(column(rising, name)[-1])
    assert float(column(falling, "loss_rise_depth")[-1]) == 0.0
    assert float(column(rising, "loss_rise_depth")[-1]) > 1.0


def test_the_certainty_of_an_alignment_does_not_know_the_number_of_parameters():
    """The more parameters, the smaller is a cosine by chance: what counts is its mean beside its spread."""

    def certainty(cosines):
        state = FeatureState.empty(1)
        for t, cosine in enumerate(cosines):
            state, features, _ = observe(TORCH, state, make_signals(1.0, cosine=cosine), torch.zeros(1), clock(t, 1000))
        return float(features[0, FEATURES.index("alignment_certainty")])

    sure, unsure = [0.02] * 30, [0.02, -0.02] * 15
    assert certainty(sure) == pytest.approx(3.0, abs=1e-3)
    assert abs(certainty(unsure)) < 0.3
    assert certainty([50 * c for c in sure[:-1] + unsure]) == pytest.approx(certainty(sure[:-1] + unsure), abs=1e-3)


def test_the_gain_of_a_direction():
    """Of SGD beside its gradient, of any other optimizer by itself; log of its growth since the first step."""
    for kind, expected in ((1.0, math.log(5.0 / 2.0)), (-1.0, math.log(5.0))):
        state = FeatureState.empty(1)
        for t, (update, grad) in enumerate(((0.1, 1.0), (0.5, 2.0))):
            signals = make_signals(1.0, grad=grad, update=update, kind=kind)
            state, features, _ = observe(TORCH, state, signals, torch.zeros(1), clock(t, 1000))
        assert float(features[0, FEATURES.index("direction_gain")]) == pytest.approx(expected, abs=1e-5)


@given(
    losses=st.lists(st.integers(-200, 200), min_size=3, max_size=12),
    factor=st.sampled_from([1e-6, 0.25, 3.0, 1e6]),
)
def test_invariant_to_a_factor_on_the_loss(losses, factor):
    """For an optimizer whose update does not scale with the loss: only the loss and its gradient do."""
    losses = [x / 64 for x in losses]
    plain, scaled = (
        run(losses),
        run([factor * x for x in losses], grad=factor, product=0.2 * factor, scale=0.25 / factor),
    )
    for name in FEATURES:
        assert torch.allclose(column(plain, name), column(scaled, name), atol=2e-3), name


@given(losses=st.lists(st.integers(-256, 256), min_size=3, max_size=12), shift=st.sampled_from([-64, 16, 1000]))
def test_invariant_to_a_shift_of_the_loss(losses, shift):
    """Losses on a grid that float32 shifts without rounding."""
    plain, shifted = run([x / 8 for x in losses]), run([x / 8 + shift for x in losses])
    assert torch.allclose(plain, shifted, atol=2e-2)


@given(scale=st.sampled_from([1e-3, 0.1, 50.0]))
def test_invariant_to_a_common_scale_of_parameters_and_updates(scale):
    """A network reparameterised by w = scale * v: updates and parameters grow by 1/scale, gradients by scale."""
    losses = [2.0, 1.5, 1.7, 1.2]
    other = run(losses, param=10.0 / scale, update=0.1 / scale, grad=scale, travel=0.5 / scale, scale=0.25 / scale)
    assert torch.allclose(run(losses), other, atol=1e-3)


@given(steps=st.lists(step_signals, min_size=1, max_size=15), total=st.one_of(st.none(), st.integers(1, 5000)))
def test_always_finite_and_clipped(steps, total):
    state, s = FeatureState.empty(1), torch.zeros(1)
    for t, (loss, grad, param, update, cosine) in enumerate(steps):
        signals = make_signals(loss, grad, param, update, cosine, -1.0)
        state, features, finite = observe(TORCH, state, signals, s, clock(t, total))
        assert bool(finite)
        assert bool(torch.isfinite(features).all())
        assert float(features.abs().max()) <= CLIP


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "grad"])
def test_a_step_that_is_not_finite_is_forgotten(bad, where):
    state = FeatureState.empty(1)
    for t in range(4):
        state, _, _ = observe(TORCH, state, make_signals(2.0 - 0.1 * t), torch.zeros(1), clock(t, 100))
    signals = make_signals(bad) if where == "loss" else make_signals(1.0, grad=bad)
    after, features, finite = observe(TORCH, state, signals, torch.zeros(1), clock(4, 100))
    assert not bool(finite)
    assert torch.equal(features, torch.zeros_like(features))
    assert all(torch.equal(a, b) for a, b in zip(after, state, strict=True))


def test_runs_do_not_mix():
    losses = torch.tensor([[2.0, -5.0], [1.0, -4.0], [1.5, -6.0]])
    state, rows = FeatureState.empty(2), None
    for t, pair in enumerate(losses):
        ones = torch.ones(2)
        rest = (1.0, 10.0, 0.1, 0.5, 1.0, 0.5, 0.2, 0.25, 0.5)
        signals = Signals(pair, *(number * ones for number in rest))
        state, rows, _ = observe(TORCH, state, signals, torch.zeros(2), clock(t, 100))
    for i in range(2):
        assert torch.allclose(rows[i], run(losses[:, i].tolist())[-1], atol=1e-6)


def test_anytime_features_leave_out_what_needs_a_horizon():
    assert set(FEATURES) - set(ANYTIME_FEATURES) == set(HORIZON_FEATURES)
    rows = run([2.0, 1.0], total=None)
    assert float(column(rows, "progress").abs().max()) == 0.0
    assert torch.equal(column(rows, "step_size"), column(rows, "step_size_reference"))


@given(losses=st.lists(st.floats(width=32), min_size=1, max_size=12))
def test_any_loss_at_all_leaves_the_state_finite(losses):
    """Infinite, NaN, and so large that its square is infinite."""
    state, s = FeatureState.empty(1), torch.zeros(1)
    for t, loss in enumerate([1.0, *losses]):
        state, features, _ = observe(TORCH, state, make_signals(loss), s, clock(t, 100))
        assert bool(torch.isfinite(features).all())
        assert all(bool(torch.isfinite(part).all()) for part in state)


def test_the_distance_is_the_largest_lower_bound_so_far():
    """r = sum <g, w_0 - w> of 0.2, -0.1, 0.4 by 0.25, 1, 0.5: bounds 0.05, 0.1, 0.25; a fall changes nothing."""
    state, found = FeatureState.empty(1), []
    for t, (product, scale) in enumerate(((0.2, 0.25), (-0.1, 1.0), (0.4, 0.5), (-0.45, 1.0))):
        signals = make_signals(1.0, product=product, scale=scale)
        state, features, _ = observe(TORCH, state, signals, torch.zeros(1), clock(t, 1000))
        found.append(float(state.distance))
    assert found == pytest.approx([0.05, 0.1, 0.25, 0.25])
    step = features[0, FEATURES.index("distance_step")]
    assert float(step) == pytest.approx(
        0.4 * (math.log(0.1 / 0.25) + float(clock(3, 1000).log_reference) + 3), abs=1e-5
    )


def test_a_rate_from_which_no_bound_comes_is_too_high():
    """The first step knows nothing of a distance; later ones that go against the gradient have none to show."""
    rows = run([2.3, 2.4], travel=0.0, product=-0.1)
    assert column(rows, "distance_step").tolist() == [0.0, CLIP]
    assert column(rows, "travel").tolist() == [-CLIP, -CLIP]
