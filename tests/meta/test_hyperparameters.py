"""Priors over hyperparameters: recorded samples, and the ranges that each documents."""

import pytest
import torch

from metalr.meta.hyperparameters import PRIORS
from metalr.meta.optimizers import OPTIMIZERS

ZEROS = [0.0, 0.0]
RECORDED = {
    "sgd": {
        "lr": [0.0085319085, 0.0501470789],
        "beta1": [0.0, 0.899999976],
        "coupled": [0.00367138139, 0.0],
        "nesterov": [1.0, 0.0],
    },
    "adam": {
        "lr": [6.73510076e-05, 0.00330328243],
        "beta1": [0.80831933, 0.899999976],
        "beta2": [0.997514248, 0.999000013],
        "decoupled": [0.0126631679, 0.00776237762],
    },
    "rmsprop": {
        "lr": [6.73510076e-05, 0.00330328243],
        "beta1": [0.899999976, 0.0],
        "beta2": [0.97918272, 0.99000001],
    },
    "lion": {"lr": [0.000137939976, 6.24040422e-06], "beta1": [0.9, 0.9], "beta2": [0.99, 0.99]},
    "muon": {"lr": [0.0275880117, 0.00124808156], "beta1": [0.95, 0.95]},
    "muon_adamw": {"lr": [0.0275880117, 0.00124808156], "beta1": [0.95, 0.95], "beta2": [0.95, 0.999]},
    "boosting": {"lr": [0.137939975, 0.00624040468]},
}
"""Two runs of each prior from a generator with seed 7 over four decades; a field that is not named is zero."""


@pytest.mark.parametrize("name", PRIORS)
def test_samples_are_those_recorded(name):
    """A shipped policy is the product of its seed: the same seed gives the same samples as then."""
    sampled = PRIORS[name].sample(2, torch.Generator().manual_seed(7), 4.0)
    for field, values in sampled._asdict().items():
        expected = torch.tensor(RECORDED[name].get(field, ZEROS))[:, None]
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=0.0, msg=lambda m, field=field: f"{field}: {m}")


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_leaves_the_generator_where_it_did(name):
    """Later samples of a generator depend on how many numbers the hyperparameters took."""
    counts = {"sgd": 6, "adam": 8, "rmsprop": 4, "lion": 3, "muon": 3, "muon_adamw": 4, "boosting": 1}
    generator, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    PRIORS[name].sample(5, generator, 4.0)
    for _ in range(counts[name]):
        torch.rand(5, generator=other)
    assert torch.equal(torch.rand(4, generator=generator), torch.rand(4, generator=other))


@pytest.mark.parametrize("name", PRIORS)
def test_initial_rates_are_log_uniform_about_the_usual_one(name):
    prior = PRIORS[name]
    decades = (prior.sample(4000, torch.Generator().manual_seed(0), 3.0).lr / prior.usual_lr).log10()
    assert decades.shape == (4000, 1)
    assert float(decades.abs().max()) <= 1.5 + 1e-5
    assert float(decades.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(decades.std()) == pytest.approx(3.0 / 12**0.5, rel=0.05)


@pytest.mark.parametrize("name", PRIORS)
def test_hyperparameters_are_in_range_and_decay_has_one_form(name):
    sampled = PRIORS[name].sample(2000, torch.Generator().manual_seed(0), 3.0)
    for beta in (sampled.beta1, sampled.beta2):
        assert bool(((beta >= 0.0) & (beta < 1.0)).all())
    assert bool((sampled.coupled * sampled.decoupled == 0.0).all())
    assert bool(((sampled.coupled >= 0.0) & (sampled.decoupled >= 0.0)).all())
    assert set(sampled.nesterov.unique().tolist()) == ({0.0, 1.0} if name == "sgd" else {0.0})


def test_every_optimizer_has_a_prior():
    assert set(OPTIMIZERS) | {"boosting"} == set(PRIORS)
