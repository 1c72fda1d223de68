"""Clipped, accumulated, sparse, frozen and missing gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from metalr import MetaLR
from tests.conftest import random_policy
from tests.fit import BATCHES, Module, Recorder, loader, make_trainer
from tests.problem import batches, make_model

CLIPS = {
    "none": {},
    "norm": {"gradient_clip_val": 1e-3},
    "value": {"gradient_clip_val": 1e-3, "gradient_clip_algorithm": "value"},
}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("clip", ["norm", "value"])
def test_clipping_is_seen_only_in_what_was_applied(tmp_path, clip, momentum):
    """The first decision is the one without clipping, to the bit; later, the last update is seen as it was."""
    policy = random_policy(strength=0.1)
    seen = {}
    for name in ("none", clip):
        seen[name] = Recorder(policy)
        make_trainer(tmp_path, seen[name], max_epochs=1, **CLIPS[name]).fit(Module(momentum=momentum), loader())
    free, clipped = seen["none"], seen[clip]
    assert torch.equal(free.features[0], clipped.features[0])
    assert free.rates[0] == clipped.rates[0]
    step_size = 2  # metalr.core.features.FEATURES
    assert float(clipped.features[1][0, step_size]) < float(free.features[1][0, step_size]) - 0.5


def test_clipping_that_never_acts_changes_no_rate(tmp_path):
    policy = random_policy(strength=0.1)
    rates = []
    for options in ({}, {"gradient_clip_val": 1e6}, {"gradient_clip_val": 1e6, "gradient_clip_algorithm": "value"}):
        seen = Recorder(policy)
        make_trainer(tmp_path, seen, max_epochs=2, **options).fit(Module(momentum=0.0), loader())
        rates.append(seen.rates)
    assert rates[0] == rates[1] == rates[2]


def test_an_accumulated_window_is_the_large_batch(tmp_path):
    """Windows of 2 batches of 8 see the loss and the gradient of batches of 16; with a last one of 1."""
    policy = random_policy(strength=0.1)
    x, y = (torch.cat(parts)[:88] for parts in zip(*batches(BATCHES), strict=True))
    rates = []
    for size, window in ((16, 1), (8, 2)):
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=size)
        seen = Recorder(policy)
        make_trainer(tmp_path, seen, max_epochs=1, accumulate_grad_batches=window).fit(Module(), data)
        rates.append([rate for (rate,) in seen.rates])
    assert len(rates[0]) == len(rates[1]) == 6
    assert rates[0][:5] == pytest.approx(rates[1][:5], rel=1e-4)
    # Lightning divides the last window's single loss by 2: its gradient is half of the large batch's, its loss is not.
    assert rates[0][5] == pytest.approx(rates[1][5], rel=0.1)


class Bag(nn.Module):
    """Rows of an embedding, and a head: some rows come twice in a batch, most never."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(500, 16, sparse=sparse), nn.Linear(16, 4)

    def forward(self, rows):
        return self.head(self.embedding(rows).mean(1))


def bags(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(40, (count, 16, 5), generator=generator)
    return [(r, r.sum(1) % 4) for r in rows]


@pytest.mark.parametrize("sample", [2**20, 6000])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adagrad(p, lr=0.1),
    ],
    ids=["sgd", "momentum", "adagrad"],
)
def test_sparse_gradients_have_the_rates_of_dense_ones(make, sample):
    rates = []
    for sparse in (False, True):
        model = Bag(sparse)
        optimizer = make(model.parameters())
        meta_lr = MetaLR(optimizer, 12, random_policy(strength=0.1), sample=sample)
        rates.append([])
        for rows, y in bags(12):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(rows), y)
            loss.backward()
            meta_lr.step(loss)
            optimizer.step()
            rates[-1].append(meta_lr.last_lr[0])
    assert rates[0] == pytest.approx(rates[1], rel=1e-4)


class NoDense(TorchDispatchMode):
    """Raises where a dense tensor of a parameter's size is made that is not the parameter."""

    def __init__(self, parameter: nn.Parameter) -> None:
        super().__init__()
        self.elements, self.own = parameter.numel(), parameter.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.numel() >= self.elements:
                assert tensor.untyped_storage().data_ptr() == self.own, func
        return made


@pytest.mark.parametrize("sample", [6000, 2**20])
def test_of_a_large_sparse_gradient_no_dense_copy_is_made(policy, sample):
    """Of an embedding that is sampled; of one that is measured whole, there is one of its size."""
    embedding = nn.Embedding(5000, 16, sparse=True)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    meta_lr = MetaLR(optimizer, 10, policy, sample=sample)
    loss = embedding(torch.tensor([3, 4999, 3])).square().sum()
    loss.backward()
    if sample < embedding.weight.numel():
        with NoDense(embedding.weight):
            meta_lr.step(loss)
    else:
        with pytest.raises(AssertionError), NoDense(embedding.weight):
            meta_lr.step(loss)


def test_sparse_adam_is_driven(policy):
    embedding = nn.Embedding(100, 4, sparse=True)
    optimizer = torch.optim.SparseAdam(embedding.parameters(), lr=0.01)
    meta_lr = MetaLR(optimizer, 10, policy)
    for rows, _ in bags(10):
        optimizer.zero_grad()
        loss = (embedding(rows) - 1.0).square().mean()
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
    assert float(torch.as_tensor(meta_lr._decider.feature_state.seen)) == 10
    assert meta_lr._features[0].tolist() != [0.0] * meta_lr._features.shape[1]


def train(model, optimizer, policy, used=lambda model, x: model(x)) -> list[float]:
    meta_lr, rates = MetaLR(optimizer, 12, policy), []
    for x, y in batches(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(used(model, x), y)
        loss.backward()
        meta_lr.step(loss)
        optimizer.step()
        rates.append(meta_lr.last_lr[0])
    return rates


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_frozen_parameters_do_not_count(policy, make):
    rates = []
    for listed in (False, True):
        model = make_model()
        model[0].requires_grad_(False)
        params = model.parameters() if listed else model[2].parameters()
        rates.append(train(model, make(params, lr=0.01), policy))
    assert rates[0] == rates[1]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_an_unused_parameter_has_a_zero_gradient(policy, make):
    rates = []
    for touched in (False, True):
        model = make_model()
        model.register_parameter("unused", nn.Parameter(torch.ones(5)))

        def used(model, x, touched=touched):
            return model(x) + 0.0 * model.unused.sum() if touched else model(x)

        rates.append(train(model, make(model.parameters(), lr=0.01), policy, used))
    assert rates[0] == rates[1]


class Idle(Module):
    """Has a branch that no rank uses."""

    def __init__(self) -> None:
        super().__init__(weight_decay=0.0)
        self.idle = nn.Linear(3, 3)


def test_a_fit_with_unused_parameters(tmp_path, policy):
    seen = Recorder(policy)
    make_trainer(tmp_path, seen, max_epochs=1).fit(Idle(), loader())
    assert seen.controllers[0].last_step == BATCHES
