"""Modules of one's own as tasks: the module's loss, its gradient, its weights, and what cannot be batched."""

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import vmap
from torch.utils.data import DataLoader, TensorDataset

from metalr import LRPolicy
from metalr.meta import InnerTraining, ModuleNet, rollout
from metalr.meta.families import ModuleTasks
from metalr.meta.hyperparameters import Hyperparameters


class Net(nn.Sequential):
    """Batch norm, a constant buffer, dropout, a frozen parameter and a shared one."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6), nn.Linear(6, 3)
        )
        self.register_buffer("shift", torch.linspace(0.0, 1.0, 6))
        self.frozen = nn.Parameter(torch.full((6,), 2.0), requires_grad=False)
        self[4].weight = nn.Parameter(self[0].weight.T.clone())

    def forward(self, x):
        return super().forward(x * self.frozen + self.shift)


class Module(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return {"loss": loss}


def data(count: int = 80, pairs: bool = True) -> L.LightningDataModule:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=generator)
    made = TensorDataset(x, x[:, :3].argmax(1)) if pairs else TensorDataset(x)
    return L.LightningDataModule.from_datasets(made, made, batch_size=16)


def tasks(module=Net, loss=F.cross_entropy, **options) -> ModuleTasks:
    return ModuleTasks(module, options.pop("data", data()), loss, train_sizes=(48,), valid_size=32, **options)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize(("module", "loss"), [(Net, F.cross_entropy), (Module, None)])
def test_each_run_has_the_modules_own_loss_and_gradient(module, loss):
    """In evaluation mode but for batch norm, which has the batch's statistics."""
    task = tasks(module, loss).sample(3, generator())
    inputs, targets = task.train.batch(torch.arange(16).repeat(3, 1))
    theta = task.theta.clone().requires_grad_()
    losses = vmap(task.net.flat_loss)(theta, inputs, targets)
    (gradient,) = torch.autograd.grad(losses.sum(), theta)
    for run in range(3):
        alone = module().eval()
        net = alone if module is Net else alone.net
        net[1].train()
        pairs = zip(task.net.unflatten(task.theta[run]).items(), alone.named_parameters(), strict=False)
        assert pairs
        own = {name.removeprefix("module."): value for name, value in task.net.unflatten(task.theta[run]).items()}
        alone.load_state_dict(own, strict=False)
        expected = F.cross_entropy(net(inputs[run]), targets[run])
        expected.backward()
        grads = [dict(alone.named_parameters())[name].grad.flatten() for name in own]
        assert losses[run].item() == pytest.approx(expected.item(), rel=1e-5)
        assert torch.allclose(gradient[run], torch.cat(grads), atol=1e-6)
        assert "frozen" not in " ".join(own)


def test_instances_have_weights_and_samples_of_their_own_from_the_generator_alone():
    family = tasks()
    torch.manual_seed(3)
    one = family.sample(2, generator())
    torch.manual_seed(4)
    again = family.sample(2, generator())
    assert torch.equal(one.theta, again.theta)
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert not torch.equal(one.theta[0], one.theta[1])
    assert not torch.equal(one.train.inputs[0], one.train.inputs[1])
    assert one.batch_size == 16
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    family.sample(1, generator())
    assert torch.equal(torch.rand(3), expected)  # the user's own random numbers stay what they were


def test_its_runs_learn():
    task = tasks().sample(4, generator())
    inner = InnerTraining("adam", Hyperparameters.of(torch.full((4, 1), 3e-2), 0.9, 0.999), 60)
    policy = LRPolicy()
    assert float(rollout(task, inner, policy.function()).curve[-1].mean()) < -0.3


class Counts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return super().forward(x)


class Branches(Net):
    def forward(self, x):
        return super().forward(x) if x.sum().item() > 0 else super().forward(-x)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"module": Counts}, "Counts changes its buffers seen in the forward pass"),
        ({"module": Branches}, r"Branches cannot be trained many at once \(torch.func.vmap\)"),
        ({"module": nn.Flatten}, "Flatten has no parameters"),
        ({"loss": None}, "loss=None, and Net has no training_step"),
        ({"loss": lambda out, y: F.cross_entropy(out, y) - 9.0}, "add a constant that keeps it above 0"),
        ({"module": dict}, "module made dict"),
        ({"data": data(pairs=False)}, "train_dataloader gives a list: make its batches pairs"),
        ({"data": data(20)}, "train_dataloader has 20 samples, and 48 are asked for"),
    ],
)
def test_what_cannot_be_a_task_is_refused_when_it_is_made(arguments, word):
    with pytest.raises(ValueError, match=word):
        tasks(**arguments)


def test_a_network_is_compiled_once_for_all_task_batches():
    family = tasks()
    assert family.sample(1, generator()).net is family.sample(2, generator()).net
    assert len({ModuleNet(Net, F.cross_entropy), ModuleNet(Net, F.cross_entropy)}) == 2


def test_a_loader_of_ones_own_may_do_anything_that_gives_pairs():
    made = data()
    made.val_dataloader = lambda: DataLoader(made.train_dataloader().dataset, batch_size=7, shuffle=True)
    assert tasks(data=made).sample(2, generator()).valid.inputs.shape == (2, 32, 6)
