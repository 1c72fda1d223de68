import pytest
import torch
import torch.nn.functional as F

from metalr.core.backend import TORCH
from metalr.core.direction import (
    AdamDirection,
    Direction,
    GradientDirection,
    MeasuredDirection,
    MomentumDirection,
    direction_of,
)
from metalr.core.sample import ParameterSample
from metalr.core.signals import measure
from tests.problem import OPTIMIZERS, batches, make_model

READ_OFF = {
    "sgd": MomentumDirection,
    "sgd_plain": GradientDirection,
    "sgd_nesterov": GradientDirection,
    "adam": AdamDirection,
    "adamw": AdamDirection,
}


@pytest.fixture(autouse=True)
def _gathered_without_gradients(monkeypatch):
    """As `MetaLR.step` is."""
    monkeypatch.setattr(Direction, "gather", torch.no_grad()(Direction.gather))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_cheapest_right_reader_is_chosen(name):
    reader = direction_of(OPTIMIZERS[name](make_model().parameters()))
    assert type(reader) is READ_OFF.get(name, MeasuredDirection)
    assert reader.is_sgd == name.startswith("sgd")


@pytest.mark.parametrize("limit", [2**20, 60])
@pytest.mark.parametrize("name", READ_OFF)
def test_reading_the_state_gives_what_the_parameters_change_gives(name, limit, monkeypatch):
    """Without decoupled decay, u is the change over the rate, however it is found, on any sample."""
    monkeypatch.setattr("metalr.core.sample.LEAST", 8)
    model = make_model().double()
    optimizer = OPTIMIZERS[name](model.parameters())
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0 if name == "adamw" else group["weight_decay"]
    read, measured = direction_of(optimizer), MeasuredDirection(optimizer)
    sample = ParameterSample(optimizer, limit)
    assert (sample.groups[0].scale is None) == (limit > 60)
    for x, y in batches(4):
        optimizer.zero_grad()
        F.cross_entropy(model(x.double()), y).backward()
        for direction in (measured, read):
            direction.remember([direction.gather(0, sample.groups[0])])
        optimizer.step()
        a, b = (direction.read(0, direction.gather(0, sample.groups[0])).clone() for direction in (read, measured))
        assert torch.allclose(a, b, rtol=2e-5, atol=1e-9)  # the step count is float32


def test_nothing_is_known_before_the_first_update():
    for name in OPTIMIZERS:
        model = make_model()
        optimizer = OPTIMIZERS[name](model.parameters())
        direction, group = direction_of(optimizer), ParameterSample(optimizer).groups[0]
        assert direction.gather(0, group) is None
        model(torch.ones(2, 8)).sum().backward()
        assert direction.read(0, direction.gather(0, group)) is None


def test_a_subclass_is_measured():
    class Odd(torch.optim.Adam):
        pass

    assert type(direction_of(Odd(make_model().parameters()))) is MeasuredDirection


@pytest.mark.parametrize("momentum", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_maximising_descends_too(momentum):
    """The direction opposes the rise: its cosine with the gradient is -1 times that of minimising."""
    cosines = []
    for maximize in (False, True):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([weight], lr=0.1, maximize=maximize, **momentum)
        direction, sample = direction_of(optimizer), ParameterSample(optimizer)
        sign = -1.0 if maximize else 1.0
        for _ in range(2):
            weight.grad = sign * torch.tensor([1.0, 2.0, 3.0])
            reading, rows = measure(torch.zeros(()), optimizer, [0.1], direction, sample)
            direction.remember(rows)
            optimizer.step()
        cosines.append(float(reading.signals(TORCH).alignment))
    assert cosines == pytest.approx([1.0, 1.0])


FORMS = {
    "plain": {},
    "decay": {"weight_decay": 0.01},
    "maximize": {"weight_decay": 0.01, "maximize": True},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "nesterov_maximize": {"momentum": 0.9, "nesterov": True, "maximize": True},
}


def directions(options: dict, lr: float, dtype: torch.dtype, alter=lambda p: None) -> list[torch.Tensor]:
    """u of three steps on gradients that are the same in every precision."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(200, generator=generator).to(dtype))
    optimizer = torch.optim.SGD([weight], lr=lr, **options)
    direction, group = direction_of(optimizer), ParameterSample(optimizer).groups[0]
    read = []
    for _ in range(3):
        weight.grad = torch.randn(200, generator=generator).to(dtype)
        direction.remember([direction.gather(0, group)])
        alter(weight)
        optimizer.step()
        read.append(direction.read(0, direction.gather(0, group)).double())
    return read


@pytest.mark.parametrize("lr", [1e-1, 1e-9])
@pytest.mark.parametrize("form", FORMS)
def test_sgds_direction_is_exact_at_a_tiny_rate(form, lr):
    """At 1e-9 the change of float32 parameters is nothing but rounding; float64's is the true direction."""
    single = directions(FORMS[form], lr, torch.float32)
    double = directions(FORMS[form], lr, torch.float64)
    for a, b in zip(single, double, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_clipped_after_the_decision_is_read_as_applied(form):
    """By value, and by norm: the direction is that of the clipped gradient, of which the sample kept no copy."""
    for clip in (
        lambda p: torch.nn.utils.clip_grad_value_(p, 0.1),
        lambda p: torch.nn.utils.clip_grad_norm_(p, 0.1),
    ):
        read = directions(FORMS[form], 0.1, torch.float64, clip)
        weight = torch.nn.Parameter(torch.randn(200, generator=torch.Generator().manual_seed(0)).double())
        generator = torch.Generator().manual_seed(0)
        torch.randn(200, generator=generator)
        optimizer = torch.optim.SGD([weight], lr=0.1, **FORMS[form])
        for u in read:
            weight.grad = torch.randn(200, generator=generator).double()
            clip(weight)
            before = weight.detach().clone()
            optimizer.step()
            assert torch.allclose(u, (before - weight.detach()) / 0.1, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("form", ["decay", "maximize", "nesterov"])
def test_a_parameter_without_a_gradient_is_left_alone_decay_and_all(form):
    weight, idle = (torch.nn.Parameter(torch.full((3,), value, dtype=torch.float64)) for value in (2.0, 5.0))
    optimizer = torch.optim.SGD([weight, idle], lr=0.1, **FORMS[form])
    direction, group = direction_of(optimizer), ParameterSample(optimizer).groups[0]
    for _ in range(2):
        before = torch.cat((weight, idle)).detach()
        weight.grad = torch.ones_like(weight)
        direction.remember([direction.gather(0, group)])
        optimizer.step()
        applied = (before - torch.cat((weight, idle)).detach()) / 0.1
        torch.testing.assert_close(direction.read(0, direction.gather(0, group)), applied)


@pytest.mark.parametrize("form", ["plain", "nesterov"])
def test_with_tensor_rates_what_is_kept_stays_where_it_is_and_a_loaded_state_is_copied(form):
    """A captured graph writes into the same memory at each replay."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=torch.tensor(0.1), **FORMS[form])
    direction, group = direction_of(optimizer), ParameterSample(optimizer).groups[0]

    def advance(value: float) -> list[int]:
        weight.grad = torch.full((3,), value)
        direction.remember([direction.gather(0, group)])
        optimizer.step()
        return [tensor.data_ptr() for tensor in (*direction._before, *direction._gradients, *direction._lrs)]

    assert advance(1.0) == advance(2.0)
    state = direction.state_dict()
    kept = [tensor.clone() for name in ("before", "gradients") for tensor in state[name]]
    direction.load_state_dict(state)
    advance(3.0)
    assert all(map(torch.equal, kept, (tensor for name in ("before", "gradients") for tensor in state[name])))


def test_a_direction_before_the_first_update_of_a_loaded_state_is_the_stored_one():
    def make():
        weight = torch.nn.Parameter(torch.arange(3.0))
        optimizer = torch.optim.SGD([weight], lr=0.1, weight_decay=0.1)
        weight.grad = torch.ones(3)
        return weight, optimizer, direction_of(optimizer), ParameterSample(optimizer).groups[0]

    weight, optimizer, direction, group = make()
    direction.remember([direction.gather(0, group)])
    optimizer.step()
    other_weight, _, other, other_group = make()
    other_weight.data.copy_(weight.data)
    other.load_state_dict(direction.state_dict())
    rows = other.gather(0, other_group)
    assert torch.equal(other.read(0, rows), direction.read(0, direction.gather(0, group)))
    other.forget()
    assert other.read(0, rows) is None
