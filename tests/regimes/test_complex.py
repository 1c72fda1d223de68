"""Complex parameters count as pairs of reals; what is not trained is never looked at."""

import pytest
import torch
from torch import nn

from metalr import MetaLR
from metalr.core.sample import ParameterSample
from tests.conftest import random_policy

STEPS = 25
MAKES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=1e-3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
}


def rates(make, as_pairs: bool, sample: int, precision: torch.dtype) -> list[float]:
    """Of a Fourier layer that learns to roll its input, with its weights as complex numbers or as pairs of reals."""
    generator = torch.Generator().manual_seed(0)
    start = 0.1 * torch.randn(3, 9, 2, dtype=precision, generator=generator)
    weight = nn.Parameter(start if as_pairs else torch.view_as_complex(start))
    optimizer = make([weight])
    meta_lr, seen = MetaLR(optimizer, STEPS, random_policy(strength=0.1), sample=sample), []
    for _ in range(STEPS):
        x = torch.randn(3, 16, dtype=precision, generator=generator)
        layer = torch.view_as_complex(weight) if as_pairs else weight
        loss = (torch.fft.irfft(torch.fft.rfft(x) * layer) - torch.roll(x, 3, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        seen.append(meta_lr.last_lr[0])
    return seen


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("sample", [2**20, 20])
@pytest.mark.parametrize("name", MAKES)
def test_complex_parameters_have_the_rates_of_pairs_of_reals(name, sample, precision, monkeypatch):
    monkeypatch.setattr("metalr.core.sample.LEAST", 8)
    complex_rates, real_rates = (rates(MAKES[name], pairs, sample, precision) for pairs in (False, True))
    assert complex_rates == pytest.approx(real_rates, rel=1e-5)
    assert len(set(complex_rates)) == STEPS


def test_a_sparse_complex_gradient_is_sampled_as_a_dense_one(monkeypatch):
    monkeypatch.setattr("metalr.core.sample.LEAST", 8)
    weight = nn.Parameter(torch.randn(50, 3, dtype=torch.cfloat))
    dense = torch.zeros(50, 3, dtype=torch.cfloat)
    dense[[4, 7, 30]] = torch.randn(3, 3, dtype=torch.cfloat)
    for limit in (2**20, 40):
        (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1), limit).groups
        with torch.no_grad():
            taken = group.gather([dense])[0].clone()
            assert torch.equal(group.gather([dense.to_sparse(1)])[0], taken)
        assert group.count == 2 * weight.numel()


@pytest.mark.parametrize("name", MAKES)
def test_what_is_not_trained_is_never_looked_at(name):
    """A table of indices, a mask and a frozen weight of another precision change no rate."""

    def trained(others) -> list[float]:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.ones(3))
        optimizer = MAKES[name]([*others, weight])
        meta_lr, seen = MetaLR(optimizer, STEPS, random_policy(strength=0.1)), []
        for _ in range(STEPS):
            loss = (weight - torch.randn(3)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            meta_lr.step(loss)
            optimizer.step()
            seen.append(meta_lr.last_lr[0])
        return seen

    kinds = (torch.arange(5), torch.ones(4, dtype=torch.bool), torch.full((2,), torch.nan, dtype=torch.bfloat16))
    assert trained([nn.Parameter(kind, requires_grad=False) for kind in kinds]) == trained([])
