import pytest
import torch

from metalr.meta import FullES, antithetic_gradient


def quadratic(theta: torch.Tensor) -> torch.Tensor:
    """0.5 sum h theta^2, gradient h theta; smoothing by a Gaussian adds a constant only."""
    return 0.5 * (torch.arange(1.0, theta.shape[-1] + 1) * theta.square()).sum(-1)


def test_the_mean_estimate_is_the_analytic_gradient():
    theta = torch.tensor([1.0, -2.0, 0.5, 0.0])
    es = FullES(pairs=40_000, sigma=0.1, squash="none")
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(es.pairs, 4, generator=generator)
    plus, minus = quadratic(es.perturb(theta, noise)).chunk(2)
    estimate = antithetic_gradient(es.weights(plus - minus, plus - minus), noise, es.sigma)
    analytic = torch.arange(1.0, 5.0) * theta
    error = 3 * analytic.norm() * (5 / es.pairs) ** 0.5  # three standard errors: var ~ (n + 1) |g|^2 / pairs
    assert float((estimate - analytic).norm()) < float(error)


def test_the_estimate_is_exact_on_a_basis_of_directions():
    """Antithetic differences of a quadratic have no curvature error: one pair along each axis gives it all."""
    theta, sigma = torch.tensor([1.0, -2.0, 0.5]), 0.3
    noise = torch.eye(3) * 3**0.5  # mean of noise noise^T is the identity
    es = FullES(pairs=3, sigma=sigma, squash="none")
    plus, minus = quadratic(es.perturb(theta, noise)).chunk(2)
    estimate = antithetic_gradient(plus - minus, noise, sigma)
    assert torch.allclose(estimate, torch.arange(1.0, 4.0) * theta, atol=1e-5)


def test_squashes():
    own = torch.tensor([-2.0, 0.0, 4.0])
    everyone = torch.tensor([-2.0, 0.0, 4.0, 1.0, -2.0])
    assert torch.equal(FullES(squash="none").weights(everyone, own), own)
    assert torch.equal(FullES(squash="sign").weights(everyone, own), torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.allclose(FullES(squash="tanh").weights(everyone, own), torch.tanh(own / 2.0))
    assert torch.equal(FullES().weights(torch.zeros(3), torch.zeros(3)), torch.zeros(3))


def test_noise_belongs_to_the_pair():
    es = FullES()
    whole = es.noise(5, range(4), 3, 11)
    assert torch.equal(es.noise(5, range(2, 4), 3, 11), whole[2:])
    assert not torch.equal(es.noise(5, range(4), 3, 12), whole)


@pytest.mark.parametrize("bad", [{"pairs": 0}, {"sigma": 0.0}, {"squash": "cube"}])
def test_bad_arguments_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        FullES(**bad)
