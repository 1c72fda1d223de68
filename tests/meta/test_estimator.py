"""Gradient estimators against analytic gradients."""

from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from metalr import LRPolicy
from metalr.meta import (
    NRES,
    PES,
    ActionES,
    Episode,
    FullES,
    GradientEstimator,
    InnerTraining,
    NetworkTask,
    Split,
    TruncatedBackprop,
    antithetic_gradient,
    rollout,
)
from metalr.meta.action_es import hold_blocks, loss_to_go
from metalr.meta.architectures import MLP, Quadratic
from metalr.meta.estimator import squashed
from metalr.meta.hyperparameters import Hyperparameters
from metalr.meta.parameter_es import perturbed
from tests.conftest import random_policy

STEPS, PAIRS = 8, 1000


def make_episode(pairs: int = PAIRS, seed: int = 0) -> Episode:
    """One noisy quadratic from one start, with other batches for each pair."""
    net, generator = Quadratic(6), torch.Generator().manual_seed(3)
    centres = 0.5 * torch.randn(1, 40, 6, generator=generator)
    inputs = torch.stack((torch.linspace(0.2, 2.0, 6).expand_as(centres), centres), dim=2)
    split = Split(inputs, torch.zeros(1, 40))
    task = NetworkTask(net, net.initialise(1, generator), split, split, batch_size=4).select(torch.zeros(pairs).long())
    inner = InnerTraining("sgd", Hyperparameters.of(torch.full((pairs, 1), 0.03), 0.5), STEPS)
    return Episode(task, inner, seed=(seed,))


def make_policy() -> LRPolicy:
    return random_policy(2, strength=0.05).requires_grad_(True)


def whole(estimator: GradientEstimator, policy: LRPolicy, episode: Episode) -> torch.Tensor:
    """The sum over the truncations of an episode, with the policy as it is."""
    total = torch.zeros(policy.size)
    while not episode.done:
        total += estimator.estimate(policy, episode).gradient
    return total


def outer_loss(vector: torch.Tensor, episode: Episode) -> float:
    policy = make_policy()
    vector_to_parameters(vector, policy.parameters())
    runs = rollout(episode.task, episode.inner, policy.function())
    return float(runs.outer_loss(episode.final_weight).double().mean())


@pytest.fixture(scope="module")
def analytic() -> torch.Tensor:
    """By automatic differentiation through the whole run of all pairs."""
    return whole(TruncatedBackprop(truncations=1), make_policy(), make_episode())


def test_backpropagation_through_the_whole_run_agrees_with_finite_differences():
    policy, generator = make_policy(), torch.Generator().manual_seed(5)
    gradient = whole(TruncatedBackprop(truncations=1), policy, make_episode())
    vector = parameters_to_vector(policy.parameters()).detach()
    for _ in range(4):
        axis = torch.randn(vector.numel(), generator=generator)
        axis = axis / axis.norm()
        step = 3e-2
        slope = outer_loss(vector + step * axis, make_episode()) - outer_loss(vector - step * axis, make_episode())
        assert slope / (2 * step) == pytest.approx(float(gradient @ axis), abs=0.03 * float(gradient.norm()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        FullES(sigma=0.002, squash="none"),
        PES(sigma=0.002, truncations=2, squash="none"),
        NRES(sigma=0.002, truncations=2, squash="none"),
        ActionES(sigma=0.02, squash="none"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_the_mean_estimate_is_the_analytic_gradient(estimator, analytic):
    """Within four standard errors, which are measured over ten seeds of the noise, and not because they are large."""
    policy, parts = make_policy(), 10
    pieces = torch.stack([whole(estimator, policy, make_episode(seed=i)) for i in range(parts)])
    axis = analytic / analytic.norm()
    along = pieces @ axis
    error = float(along.std() / parts**0.5)
    assert abs(float(along.mean()) - float(analytic.norm())) < 4 * error + 0.02 * float(analytic.norm())
    assert error < 0.25 * float(analytic.norm())


def test_noise_on_decisions_is_less_noisy_than_noise_on_weights(analytic):
    """At as many pairs, noise on the decisions gives a gradient that points better than noise on the weights."""
    cosine = {}
    for estimator in (FullES(sigma=0.002, squash="none"), ActionES(sigma=0.02, squash="none")):
        gradients = [whole(estimator, make_policy(), make_episode(64, seed)) for seed in range(5)]
        cosine[type(estimator)] = sum(float(torch.cosine_similarity(g, analytic, dim=0)) for g in gradients) / 5
    assert cosine[ActionES] > cosine[FullES] + 0.2


def test_the_estimate_is_exact_on_a_basis_of_directions():
    """Antithetic differences of a quadratic have no curvature error: one pair along each axis gives it all."""
    theta, sigma, h = torch.tensor([1.0, -2.0, 0.5]), 0.3, torch.tensor([1.0, 2.0, 3.0])
    noise = torch.eye(3) * 3**0.5  # mean of noise noise^T is the identity
    plus, minus = (0.5 * (h * perturbed(theta, noise, sigma).square()).sum(-1)).chunk(2)
    assert torch.allclose(antithetic_gradient(plus - minus, noise, sigma), h * theta, atol=1e-5)


def test_squashes():
    own, everyone = torch.tensor([-2.0, 0.0, 4.0]), torch.tensor([-2.0, 0.0, 4.0, 1.0, -2.0])
    assert torch.equal(squashed(own, everyone, "none"), own)
    assert torch.equal(squashed(own, everyone, "sign"), torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.allclose(squashed(own, everyone, "tanh"), torch.tanh(own / 2.0))
    assert torch.equal(squashed(torch.zeros(3), torch.zeros(3), "tanh"), torch.zeros(3))


def test_noise_belongs_to_the_pair():
    everyone, some = make_episode(4), make_episode(2)
    assert torch.equal(some.noise(5), everyone.noise(5)[:2])
    assert not torch.equal(everyone.noise(5), everyone.noise(5, 1))


@pytest.mark.parametrize("estimator", [PES, NRES, TruncatedBackprop], ids=lambda e: e.__name__)
def test_an_interrupted_episode_goes_on_to_the_last_bit(estimator):
    made = estimator(pairs=3, truncations=4)
    policy, one, other = make_policy(), make_episode(3), make_episode(3)
    pieces = []
    while not one.done:
        pieces.append(made.estimate(policy, one).gradient)
    for _ in pieces[:-1]:
        made.estimate(policy, other)
    resumed = make_episode(3)
    resumed.load_state_dict(other.state_dict())
    assert torch.equal(made.estimate(policy, resumed).gradient, pieces[-1])
    assert resumed.done


def test_a_truncation_without_an_evaluation_has_no_gradient():
    """Ten evaluations lie in ten of twenty pieces."""
    episode = make_episode(3)
    episode.inner = replace(episode.inner, total_steps=40)
    pieces = []
    while not episode.done:
        pieces.append(TruncatedBackprop(pairs=3, truncations=20).estimate(make_policy(), episode))
    sizes = [float(piece.gradient.norm()) for piece in pieces]
    assert sizes[::2] == [0.0] * 10
    assert min(sizes[1::2]) > 0.0


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_backpropagation_is_finite_where_a_gradient_is_zero(optimizer):
    """The root of a second moment of 0, as of a unit that is never active, has no finite derivative."""
    net, generator = MLP(inputs=4, width=6, depth=1, outputs=3), torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 20, 4, generator=generator)
    inputs[..., 0] = 0.0  # its weights have no gradient
    split = Split(inputs, torch.randint(3, (2, 20), generator=generator))
    task = NetworkTask(net, net.initialise(2, generator), split, split, batch_size=4)
    episode = Episode(task, InnerTraining(optimizer, Hyperparameters.of(torch.full((2, 1), 0.01), 0.9, 0.99), STEPS))
    gradient = whole(TruncatedBackprop(pairs=2, truncations=1), make_policy(), episode)
    assert bool(torch.isfinite(gradient).all())
    assert float(gradient.norm()) > 0.0


def test_noise_is_held_for_a_share_of_the_span():
    assert hold_blocks(100, False, 128).tolist() == list(range(100))
    long = hold_blocks(5000, False, 128)
    assert len(long) == 5000
    lengths = long.bincount()
    assert int(lengths[0]) == 1
    assert int(lengths.max()) == round(5000 / 128)
    assert bool((lengths[1:-1] >= lengths[:-2]).all())
    assert int(hold_blocks(5000, True, 128).bincount()[-2]) > int(lengths.max())


def test_a_decision_is_credited_with_the_loss_after_it():
    """Outer loss to go: the whole of it at the first step, the last point's share at the last."""
    episode, policy = make_episode(3), make_policy()
    action_noise = torch.randn(STEPS, 6, generator=torch.Generator().manual_seed(0))
    runs = rollout(episode.task, episode.inner, policy.function(), copies=2, evaluations=4, action_noise=action_noise)
    to_go = loss_to_go(runs, 0.75)
    plus, minus = runs.outer_loss(0.75).chunk(2)
    assert to_go.shape == (STEPS, 3)
    assert torch.allclose(to_go[0], plus - minus, atol=1e-5)
    last_plus, last_minus = runs.curve[-1].chunk(2)
    assert torch.allclose(to_go[-1], (0.75 + 0.25 / 4) * (last_plus - last_minus), atol=1e-5)


@pytest.mark.parametrize(
    ("estimator", "bad"),
    [
        (FullES, {"pairs": 0}),
        (PES, {"sigma": 0.0}),
        (NRES, {"squash": "cube"}),
        (PES, {"truncations": 0}),
        (ActionES, {"decisions": 0}),
        (ActionES, {"sigma": -1.0}),
        (TruncatedBackprop, {"truncations": 0}),
    ],
)
def test_bad_arguments_are_named(estimator, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        estimator(**bad)
