from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from metalr.sample import _SMALL, SLICES, ParameterSample, _cuts


def make_optimizer(*shapes, lr: float = 0.1) -> torch.optim.Optimizer:
    generator = torch.Generator().manual_seed(0)
    return torch.optim.SGD([nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes], lr=lr)


def test_below_the_limit_it_is_everything():
    optimizer = make_optimizer((30, 40), (7,))
    (group,) = ParameterSample(optimizer).groups
    vector = group.gather(lambda p: p)
    assert torch.equal(vector, torch.cat([p.detach().flatten() for p in optimizer.param_groups[0]["params"]]))
    assert (group.scale, group.count) == (None, 1207)


@given(count=st.integers(0, 10**7), share=st.floats(1e-4, 1.0))
def test_cuts_lie_apart_and_take_their_share(count, share):
    cuts = _cuts(count, share)
    if cuts is None:
        assert count <= _SMALL or share * count > count - 1
        return
    assert all(a.stop <= b.start for a, b in pairwise(cuts))
    assert cuts[0].start == 0
    assert cuts[-1].stop <= count
    taken = sum(cut.stop - cut.start for cut in cuts)
    assert share * count - SLICES <= taken <= share * count + SLICES


def test_the_estimate_of_a_norm_is_close_to_the_norm():
    """Of tensors of different sizes and scales; the tolerance is some five standard errors."""
    optimizer = make_optimizer((1000, 1000), (500, 800), (2000,))
    params = optimizer.param_groups[0]["params"]
    with torch.no_grad():
        params[1].mul_(10.0)
    full = torch.cat([p.detach().flatten() for p in params])
    (group,) = ParameterSample(optimizer, limit=100_000).groups
    sampled = group.gather(lambda p: p)
    assert len(sampled) < 110_000
    assert float(sampled.norm()) == pytest.approx(float(full.norm()), rel=0.02)
    shifted = group.gather(lambda p: p + 1.0)
    assert float(sampled.dot(shifted)) == pytest.approx(float(full.dot(full + 1.0)), rel=0.05)
    assert group.count == full.numel()


def test_what_is_missing_counts_as_zero():
    optimizer = make_optimizer((3,), (2,))
    _, second = optimizer.param_groups[0]["params"]
    (group,) = ParameterSample(optimizer).groups
    assert group.gather(lambda p: p.grad) is None
    second.grad = torch.tensor([1.0, 2.0])
    assert group.gather(lambda p: p.grad).tolist() == [0.0, 0.0, 0.0, 1.0, 2.0]


def test_memory_order_is_one_for_a_parameter_and_its_gradient():
    weight = nn.Parameter(torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last))
    weight.grad = weight.detach().clone()
    (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1)).groups
    assert torch.equal(group.gather(lambda p: p), group.gather(lambda p: p.grad))


def test_frozen_parameters_are_left_out_and_thawed_ones_noticed():
    optimizer = make_optimizer((3,), (2,))
    first, _ = optimizer.param_groups[0]["params"]
    first.requires_grad_(False)
    sample = ParameterSample(optimizer)
    assert sample.groups[0].count == 2
    assert sample.fits(optimizer.param_groups)
    first.requires_grad_(True)
    assert not sample.fits(optimizer.param_groups)


def test_half_precision_is_summed_in_single():
    weight = nn.Parameter(torch.full((100_000,), 1.0, dtype=torch.bfloat16))
    vector = ParameterSample(torch.optim.SGD([weight], lr=0.1)).groups[0].gather(lambda p: p)
    assert float(vector.dot(vector)) == 100_000.0


@pytest.mark.parametrize("limit", [2**20, 6000])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_sparse_gradient_is_its_dense_form(limit, repeated):
    """Whole and cut into slices; rows that come twice are added up."""
    embedding = nn.Embedding(1000, 12, sparse=True)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    rows = torch.tensor([1, 2, 2, 999] if repeated else list(range(0, 1000, 7)))
    weight = torch.randn(len(rows), 12, generator=torch.Generator().manual_seed(0))
    (embedding(rows) * weight).sum().backward()
    dense = embedding.weight.grad.to_dense()
    (group,) = ParameterSample(optimizer, limit).groups
    assert (group.cuts[0] is None) == (limit > 6000)
    sparse = group.gather(lambda p: p.grad)
    assert torch.equal(sparse, group.gather(lambda p: dense))
    assert float(sparse.norm()) > 0 or limit == 6000


def test_a_sparse_gradient_of_many_sparse_dimensions_is_its_dense_form():
    weight = nn.Parameter(torch.ones(60, 50, 4))
    (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1), 6000).groups
    dense = torch.where(torch.rand(60, 50, 4, generator=torch.Generator().manual_seed(0)) < 0.1, 2.0, 0.0)
    for sparse_dim in (1, 2, 3):
        sparse = dense.to_sparse(sparse_dim)
        assert torch.equal(group.gather(lambda p, s=sparse: s), group.gather(lambda p: dense))
