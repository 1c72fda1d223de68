import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metalr.core.backend import TORCH
from metalr.core.features import (
    ANYTIME_FEATURES,
    CLIP,
    EPOCH_FEATURES,
    FEATURES,
    HORIZON_FEATURES,
    FeatureState,
    observe,
)
from metalr.core.signals import Signals
from metalr.core.update_rule import clock
from metalr.core.validation_loss import VALIDATION_FEATURES

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


@pytest.mark.parametrize(
    ("step", "total", "span"),
    [(0, 400, 100), (100, 400, 300), (300, 400, 400), (0, 90, 90), (900, None, 1900)],
)
def test_epochs_are_counted_over_the_span(step, total, span):
    """A span is min(T, 2 (t + 50)) steps, here with 20 in an epoch for one run; the other does not know."""
    state = FeatureState.empty(2)
    signals = Signals(*(part.expand(2) for part in make_signals(2.0)[:-2]))
    signals = signals._replace(steps_per_epoch=torch.tensor([20.0, 0.0]))
    _, features, finite = observe(TORCH, state, signals, torch.zeros(2), clock(step, total))
    assert bool(finite.all())
    found = features[:, [FEATURES.index(name) for name in EPOCH_FEATURES]]
    assert torch.allclose(found, torch.tensor([[math.log10(span / 20), 1.0], [0.0, 0.0]]), atol=1e-6)


SECOND = {
    "loss": 2.0,
    "grad": math.exp(0.4),
    "param": 10 * math.exp(0.3),
    "update": 0.1 * math.exp(0.9),
    "cosine": -0.1,
}
LEARNED = 0.6
"""Signals of a second step after those of `make_signals(4.0)`, and the log multiplier then, after 0."""


def golden_step(before: int, first: float, then: dict, log_multiplier: float, kind: float = 1.0) -> dict[str, float]:
    """Features of the step after so many steps of the same signals, at T = 100."""
    state = FeatureState.empty(1)
    for t in range(before):
        signals = make_signals(first, kind=kind)
        state, _, _ = observe(TORCH, state, signals, torch.zeros(1), clock(t, 100))
    signals = make_signals(**then, kind=kind, travel=0.8, product=0.3, scale=0.5, structure=-0.4)
    _, features, finite = observe(TORCH, state, signals, torch.tensor([log_multiplier]), clock(before, 100))
    assert bool(finite)
    return dict(zip(FEATURES, features[0].tolist(), strict=True))


def log_cosine(t: int) -> float:
    """Of the reference schedule at T = 100."""
    return math.log(0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * t / 100)))


def test_golden_numbers_of_a_second_step():
    """All averages are means of two: of the loss 3, of the variance (0 + (2 - 3)^2) / 2, of log |g| 0.2, of c 0.2."""
    noise, depth = math.sqrt(0.5), 4 - 3 + math.sqrt(0.5)
    relative = math.log(0.1 / 10) + 0.9 - 0.3 + LEARNED
    update = math.log(0.1) + 0.9 + LEARNED + log_cosine(1)
    distance = math.log((0.2 + 0.3) * 0.5)
    expected = {
        "progress": -0.98,
        "early": math.exp(-0.1),
        "step_size": 0.4 * (relative + log_cosine(1) + 6),
        "step_size_reference": 0.4 * (relative + 6),
        "alignment_fast": 3 * 0.2,
        "alignment_middle": 4 * 0.2,
        "alignment_certainty": 3 * 0.2 / math.sqrt((0.25 + 0.01) / 2),
        "direction_gain": 0.9 - 0.4,
        "loss_trend_fast": 0.0,
        "loss_trend_slow": 0.0,
        "loss_rise_noise": 0.0,
        "loss_rise_depth": 0.0,
        "loss_noise": 0.4 * math.log(noise / depth),
        "predicted_change": 0.25 * (update + 0.4 - math.log(noise)),
        "gradient_trend": 0.0,
        "gradient_spike": 0.4 - 0.2,
        "gradient_decay": 0.5 * 0.2,
        "parameter_growth": 0.3,
        "rate_trend": LEARNED - LEARNED / 2,
        "optimizer": 1.0,
        "travel": 0.4 * (math.log(0.8 / 10) - 0.3 + 5),
        "distance_step": 0.4 * (update - distance + 3),
        "distance_travel": 0.5 * (math.log(0.8) - distance),
        "weight_structure": -0.6,
        **dict.fromkeys((*EPOCH_FEATURES, *VALIDATION_FEATURES), 0.0),  # none is given
    }
    assert golden_step(1, 4.0, SECOND, LEARNED) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("change", [-0.8, 0.8])
def test_golden_numbers_of_a_later_step(change):
    """After 40 equal steps everything changes by 0.8: by 0.2, 0.1 and 0.04 in windows of 4, 8 and 20.

    So the loss is 0.6 away from its fast average, and the variance an eighth of the square of that.
    """
    changed = {
        "loss": 2.0 + change,
        "grad": math.exp(change),
        "param": 10 * math.exp(change),
        "update": 0.1 * math.exp(0.5 * change),
        "cosine": 0.5 - 0.8,
    }
    noise = 0.75 * 0.8 / math.sqrt(8)
    rise = 0.2 if change > 0 else 0.0
    depth = noise + (0.0 if change > 0 else 0.2)
    update = math.log(0.1) + 0.5 * change + change + log_cosine(40)
    distance = math.log(max(40 * 0.2 * 0.25, (40 * 0.2 + 0.3) * 0.5))
    expected = {
        "progress": -0.2,
        "early": math.exp(-4),
        "step_size": 0.4 * (update - math.log(10) - change + 6),
        "step_size_reference": 0.4 * (update - log_cosine(40) - math.log(10) - change + 6),
        "alignment_fast": 3 * (0.5 - 0.2),
        "alignment_middle": 4 * (0.5 - 0.1),
        "alignment_certainty": 3 * 0.4 / math.sqrt(0.25 + (0.09 - 0.25) / 8),
        "direction_gain": -0.5 * change,
        "loss_trend_fast": math.asinh(change / 8 / noise),
        "loss_trend_slow": math.asinh(change * (1 / 8 - 1 / 20) / noise),
        "loss_rise_noise": math.asinh(rise / noise),
        "loss_rise_depth": 2 * rise / depth,
        "loss_noise": 0.4 * math.log(noise / depth),
        "predicted_change": 0.25 * (update + change - math.log(noise)),
        "gradient_trend": change * (1 / 4 - 1 / 20),
        "gradient_spike": change * 7 / 8,
        "gradient_decay": 0.5 * change / 4,
        "parameter_growth": change,
        "rate_trend": change * 19 / 20,
        "optimizer": 1.0,
        "travel": 0.4 * (math.log(0.08) - change + 5),
        "distance_step": 0.4 * (update - distance + 3),
        "distance_travel": 0.5 * (math.log(0.8) - distance),
        "weight_structure": -0.6,
        **dict.fromkeys((*EPOCH_FEATURES, *VALIDATION_FEATURES), 0.0),  # none is given
    }
    clipped = {name: min(max(value, -CLIP), CLIP) for name, value in expected.items()}
    assert sum(clipped[name] != expected[name] for name in expected) <= 1  # a clipped number would test little
    assert golden_step(40, 2.0, changed, change) == pytest.approx(clipped, abs=2e-5)


def test_golden_numbers_of_another_optimizer_than_sgd():
    """Its gain is its direction's own growth, without the gradient's."""
    found = golden_step(1, 4.0, SECOND, LEARNED, kind=-1.0)
    sgd = golden_step(1, 4.0, SECOND, LEARNED)
    assert found["direction_gain"] == pytest.approx(0.9, abs=1e-5)
    assert found["optimizer"] == -1.0
    assert {n for n in FEATURES if found[n] != sgd[n]} == {"direction_gain", "optimizer"}


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
