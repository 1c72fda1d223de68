import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from metalr.core.sample import LEAST, LENGTH, Cut, ParameterSample

pytestmark = pytest.mark.usefixtures("_without_gradients")


@pytest.fixture
def _without_gradients():
    with torch.no_grad():
        yield


def make_optimizer(*shapes, lr: float = 0.1) -> torch.optim.Optimizer:
    generator = torch.Generator().manual_seed(0)
    return torch.optim.SGD([nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes], lr=lr)


def test_below_the_limit_it_is_everything():
    optimizer = make_optimizer((30, 40), (7,))
    (group,) = ParameterSample(optimizer).groups
    (vector,) = group.gather(group.params)
    assert torch.equal(vector, torch.cat([p.flatten() for p in group.params]))
    assert (group.scale, group.count) == (None, 1207)


@given(count=st.integers(0, 10**9), share=st.floats(1e-4, 1.0))
def test_slices_lie_apart_within_the_tensor_and_take_their_share(count, share):
    cut = Cut.of(count, share)
    if cut is None:
        assert count < 1.1 * LEAST or share > 0.9
        return
    assert cut.length <= cut.stride
    assert cut.stride % 2 == 1
    assert cut.stride >= count // cut.number - 1  # spread over all of it
    assert (cut.number - 1) * cut.stride + cut.length <= count
    taken = cut.number * cut.length
    wanted = max(share * count, LEAST)
    assert wanted - LENGTH <= taken <= wanted + 1


@given(seed=st.integers(0, 1000))
def test_the_estimate_of_a_norm_is_close_to_the_norm(seed):
    """Of tensors of different sizes and scales; the tolerance is some five standard errors."""
    torch.manual_seed(seed)
    params = [
        nn.Parameter(scale * torch.randn(shape)) for scale, shape in ((1, (300, 500)), (10, (200, 400)), (1, 2000))
    ]
    full = torch.cat([p.flatten() for p in params])
    (group,) = ParameterSample(torch.optim.SGD(params, lr=0.1), limit=20_000).groups
    sampled, shifted = group.scaled(group.gather(params, [p + 1.0 for p in params]))
    assert len(sampled) < 23_000
    assert float(sampled.norm()) == pytest.approx(float(full.norm()), rel=0.04)
    assert float(sampled.dot(shifted)) == pytest.approx(float(full.dot(full + 1.0)), rel=0.1)
    assert group.count == full.numel()


@pytest.mark.parametrize("first", [0, 14_000])
def test_the_gradient_of_an_embedding_of_which_few_rows_were_read_is_estimated_too(first):
    """Of 1,000 rows in 30,000, side by side as frequent tokens are; a twentieth of the elements is sampled."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(30_000, 128))
    grad = torch.zeros_like(weight)
    grad[first : first + 1000] = torch.randn(1000, 128) * torch.rand(1000, 1)
    (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1), weight.numel() // 20).groups
    (sampled,) = group.scaled(group.gather([grad]))
    assert float(sampled.norm()) == pytest.approx(float(grad.norm()), rel=0.1)


def test_what_is_missing_counts_as_zero():
    optimizer = make_optimizer((3,), (2,))
    first, second = optimizer.param_groups[0]["params"]
    (group,) = ParameterSample(optimizer).groups
    first.grad = torch.ones(3)
    group.gather([p.grad for p in group.params])
    first.grad, second.grad = None, torch.tensor([1.0, 2.0])
    assert group.gather([p.grad for p in group.params]).tolist() == [[0.0, 0.0, 0.0, 1.0, 2.0]]


@pytest.mark.parametrize("limit", [10**6, 30_000])
def test_an_element_of_a_parameter_and_of_its_gradient_come_together(limit):
    """In whichever layout each lies in memory."""
    layouts = (torch.contiguous_format, torch.channels_last)
    for layout in layouts:
        weight = nn.Parameter(torch.randn(40, 30, 8, 8).to(memory_format=layout))
        (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1), limit).groups
        assert (group.cuts[0] is None) == (limit == 10**6)
        for other in layouts:
            one, two = group.gather([weight], [2.0 * weight.detach().clone(memory_format=other)])
            assert torch.equal(2.0 * one, two)


def test_a_parameter_with_gaps_in_memory_is_taken_whole():
    weight = nn.Parameter(torch.randn(200, 300)[:, ::2])
    (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1), 2000).groups
    assert torch.equal(group.gather([weight])[0], weight.flatten())


def test_frozen_parameters_are_left_out_and_thawed_and_resized_ones_noticed():
    optimizer = make_optimizer((3,), (2,))
    first, second = optimizer.param_groups[0]["params"]
    first.requires_grad_(False)
    sample = ParameterSample(optimizer)
    assert sample.groups[0].count == 2
    assert sample.fits(optimizer.param_groups)
    first.requires_grad_(True)
    assert not sample.fits(optimizer.param_groups)
    first.requires_grad_(False)
    second.data = torch.ones(5)
    assert not sample.fits(optimizer.param_groups)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype):
    weight = nn.Parameter(torch.full((100_000,), 1.0, dtype=dtype))
    (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1)).groups
    (vector,) = group.gather([weight])
    assert float(vector.dot(vector)) == 100_000.0


def test_parameters_of_many_precisions_are_gathered_in_the_highest():
    params = [nn.Parameter(torch.full((4,), 1 / 3, dtype=dtype)) for dtype in (torch.bfloat16, torch.float64)]
    (group,) = ParameterSample(torch.optim.SGD(params, lr=0.1)).groups
    assert group.gather(params)[0].tolist() == [float(params[0][0])] * 4 + [1 / 3] * 4


@pytest.mark.parametrize("limit", [2**20, 6000])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_sparse_gradient_is_its_dense_form(limit, repeated):
    """Whole and cut into slices; rows that come twice are added up."""
    embedding = nn.Embedding(1000, 12, sparse=True)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    rows = torch.tensor([1, 2, 2, 999] if repeated else list(range(0, 1000, 7)))
    weight = torch.randn(len(rows), 12, generator=torch.Generator().manual_seed(0))
    with torch.enable_grad():
        (embedding(rows) * weight).sum().backward()
    grad = embedding.weight.grad
    (group,) = ParameterSample(optimizer, limit).groups
    assert (group.cuts[0] is None) == (limit > 6000)
    sparse, dense = group.gather([grad], [grad.to_dense()])
    assert torch.equal(sparse, dense)
    assert float(sparse.norm()) > 0 or limit == 6000


def test_a_sparse_gradient_of_many_sparse_dimensions_is_its_dense_form():
    weight = nn.Parameter(torch.ones(60, 50, 4))
    (group,) = ParameterSample(torch.optim.SGD([weight], lr=0.1), 6000).groups
    dense = torch.where(torch.rand(60, 50, 4, generator=torch.Generator().manual_seed(0)) < 0.1, 2.0, 0.0)
    for sparse_dim in (1, 2, 3):
        sparse, plain = group.gather([dense.to_sparse(sparse_dim)], [dense])
        assert torch.equal(sparse, plain)
