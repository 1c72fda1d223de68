import pytest
import torch
import torch.nn.functional as F

from metalr.direction import AdamDirection, MeasuredDirection, MomentumDirection, direction_of
from metalr.sample import ParameterSample
from metalr.signals import measure
from tests.problem import OPTIMIZERS, batches, make_model

READ_OFF = {"sgd": MomentumDirection, "adam": AdamDirection, "adamw": AdamDirection}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_cheapest_right_reader_is_chosen(name):
    reader = direction_of(OPTIMIZERS[name](make_model().parameters()))
    assert type(reader) is READ_OFF.get(name, MeasuredDirection)
    assert reader.is_sgd == name.startswith("sgd")


@pytest.mark.parametrize("limit", [2**20, 60])
@pytest.mark.parametrize("name", READ_OFF)
def test_reading_the_state_gives_what_the_parameters_change_gives(name, limit, monkeypatch):
    """Without decoupled decay, u is the change over the rate, however it is found, on any sample."""
    monkeypatch.setattr("metalr.sample._SMALL", 8)
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
        measured.remember(sample)
        optimizer.step()
        a, b = read.read(0, sample.groups[0]), measured.read(0, sample.groups[0])
        assert torch.allclose(a, b, rtol=2e-5, atol=1e-9)  # the step count is float32


def test_nothing_is_known_before_the_first_update():
    for name in OPTIMIZERS:
        optimizer = OPTIMIZERS[name](make_model().parameters())
        assert direction_of(optimizer).read(0, ParameterSample(optimizer).groups[0]) is None


def test_a_subclass_is_measured():
    class Odd(torch.optim.Adam):
        pass

    assert type(direction_of(Odd(make_model().parameters()))) is MeasuredDirection


def test_maximising_descends_too():
    """The direction opposes the rise: its cosine with the gradient is -1 times that of minimising."""
    cosines = []
    for maximize in (False, True):
        weight = torch.nn.Parameter(torch.ones(3))
        optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, maximize=maximize)
        sign = -1.0 if maximize else 1.0
        for _ in range(2):
            weight.grad = sign * torch.tensor([1.0, 2.0, 3.0])
            signals = measure(torch.zeros(()), optimizer, [0.1], direction_of(optimizer), ParameterSample(optimizer))
            optimizer.step()
        cosines.append(float(signals.alignment))
    assert cosines == pytest.approx([1.0, 1.0])
