"""A real torch run under MetaLR against the batched inner run: feature by feature, step by step."""

import pytest
import torch

from metalr import MetaLR
from metalr.core.features import EPOCH_FEATURES, FEATURES
from metalr.meta.architectures import MLP
from metalr.meta.hyperparameters import Hyperparameters
from metalr.meta.network_runs import batch_indices
from metalr.meta.network_task import NetworkTask
from metalr.meta.rollout import rollout
from metalr.meta.split import Split
from metalr.meta.task import InnerTraining
from tests.conftest import random_policy, validating_policy

NET = MLP(inputs=6, width=10, depth=2, outputs=3)
INSTANCES, STEPS = 3, 40
LRS = (0.03, 0.1, 0.2)


def hyper(lr_scale=1.0, beta1=0.0, beta2=0.0, coupled=0.0, decoupled=0.0, nesterov=0.0) -> Hyperparameters:
    lr = lr_scale * torch.tensor(LRS)[:, None]
    rest = {"beta1": beta1, "beta2": beta2, "coupled": coupled, "decoupled": decoupled, "nesterov": nesterov}
    return Hyperparameters(lr=lr, **{name: torch.full_like(lr, value) for name, value in rest.items()})


class MomentumRule(torch.optim.Optimizer):
    """A rule of a parameter, its gradient and one moment, with decay of 0.1 times the rate."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self.move(p, group["lr"])

    def move(self, p: torch.nn.Parameter, lr: float) -> None:
        """Takes the step of one parameter."""
        update = self.update(p.grad, self.state[p].setdefault("m", torch.zeros_like(p)))
        p.mul_(1.0 - 0.1 * lr).sub_(update, alpha=lr)

    def update(self, grad: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
        """Of the parameter, at a rate of 1; changes the moment."""
        raise NotImplementedError


class Lion(MomentumRule):
    """Chen et al. 2023, algorithm 2."""

    def update(self, grad, moment):
        update = torch.lerp(grad, moment, 0.9).sign()
        moment.lerp_(grad, 0.01)
        return update


class Muon(MomentumRule):
    """Jordan 2024, on matrices (in, out) and on vectors, which are matrices of one column."""

    def update(self, grad, moment):
        moment.lerp_(grad, 0.05)
        ahead = torch.lerp(grad, moment, 0.95)
        matrix = ahead[:, None] if grad.dim() == 1 else ahead.T  # torch's (out, in)
        x = matrix / matrix.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        return (max(1.0, x.shape[0] / x.shape[1]) ** 0.5 * x).T.reshape(grad.shape)


class MuonWithAdamW(Muon):
    """Muon for the matrix in the middle; torch's own AdamW, at a twentieth of the rate, for each of the others."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, lr)
        middle = [p for p in params if p.dim() == 2][1:-1]
        others = [p for p in params if all(p is not matrix for matrix in middle)]
        self.adamw = {p: torch.optim.AdamW([p], betas=(0.9, 0.95), weight_decay=0.1) for p in others}

    def move(self, p, lr) -> None:
        if p in self.adamw:
            self.adamw[p].param_groups[0]["lr"] = 0.05 * lr
            self.adamw[p].step()
        else:
            super().move(p, lr)


CASES = {
    "muon_adamw": (
        "muon_adamw",
        hyper(0.05, 0.95, 0.95, decoupled=0.1),
        lambda p, lr: MuonWithAdamW(p, 0.05 * lr),
    ),
    "muon": ("muon", hyper(0.05, 0.95, decoupled=0.1), lambda p, lr: Muon(p, 0.05 * lr)),
    "nesterov": (
        "sgd",
        hyper(beta1=0.9, coupled=1e-3, nesterov=1.0),
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=1e-3, nesterov=True),
    ),
    "rmsprop": ("rmsprop", hyper(0.05, 0.5, 0.9), lambda p, lr: torch.optim.RMSprop(p, 0.05 * lr, 0.9, momentum=0.5)),
    "lion": ("lion", hyper(0.01, 0.9, 0.99, decoupled=0.1), lambda p, lr: Lion(p, 0.01 * lr)),
    "sgd": ("sgd", hyper(), lambda p, lr: torch.optim.SGD(p, lr=lr)),
    "momentum": (
        "sgd",
        hyper(beta1=0.9, coupled=1e-3),
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, weight_decay=1e-3),
    ),
    "adam": (
        "adam",
        hyper(0.05, 0.9, 0.999, coupled=1e-3),
        lambda p, lr: torch.optim.Adam(p, lr=0.05 * lr, weight_decay=1e-3),
    ),
    "adamw": (
        "adam",
        hyper(0.05, 0.8, 0.95, decoupled=0.1),
        lambda p, lr: torch.optim.AdamW(p, lr=0.05 * lr, betas=(0.8, 0.95), weight_decay=0.1),
    ),
}


def make_task() -> NetworkTask:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(INSTANCES, 80, 6, generator=generator)
    y = torch.randint(3, (INSTANCES, 80), generator=generator)
    theta = NET.initialise(INSTANCES, generator)
    return NetworkTask(NET, theta, Split(x[:, :60], y[:, :60]), Split(x[:, 60:], y[:, 60:]), batch_size=12)


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_real_run_and_a_batched_one_see_and_do_the_same(case, anytime):
    name, hypers, make_optimizer = CASES[case]
    # A direction that is measured from the parameters' change would show float32's rounding.
    dtype = torch.float32 if case in ("momentum", "adam", "adamw") else torch.float64
    task, policy = make_task(), random_policy(4, anytime=anytime, strength=0.1)
    policy = policy.widened([*policy.features, *EPOCH_FEATURES])
    inner = InnerTraining(name, hypers, STEPS, anytime, batch_seed=7, epochs_known=True)
    batched = rollout(task, inner, policy.function(), record=True)
    indices = batch_indices(inner, instances=INSTANCES, samples=task.train.inputs.shape[1], batch_size=task.batch_size)
    order = [next(indices) for _ in range(STEPS)]
    for i in range(INSTANCES):
        params = {k: torch.nn.Parameter(v.to(dtype, copy=True)) for k, v in NET.unflatten(task.theta[i]).items()}
        optimizer = make_optimizer(list(params.values()), LRS[i])
        meta_lr = MetaLR(optimizer, None if anytime else STEPS, policy, steps_per_epoch=60 / 12)
        for t in range(STEPS):
            rows = order[t][i]
            loss = NET.loss(params, task.train.inputs[i, rows].to(dtype), task.train.targets[i, rows])
            optimizer.zero_grad()
            loss.backward()
            meta_lr.step(loss)
            optimizer.step()
            seen = batched.records[t]
            assert bool(torch.isfinite(seen.loss).all())
            difference = (meta_lr._features[0] - seen.features[i]).abs()
            worst = int(difference.argmax())
            assert float(difference.max()) < 5e-3, f"step {t}: {FEATURES[worst]}"
            assert meta_lr.last_lr[0] == pytest.approx(float(seen.lr[i]), rel=1e-2)
        valid = NET.loss(params, task.valid.inputs[i].to(dtype), task.valid.targets[i])
        final = batched.initial[i] * batched.curve[-1, i].exp()
        assert float(valid.detach()) == pytest.approx(float(final), rel=1e-2)


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("interval", [1, 7, 50])
def test_a_real_run_and_a_batched_one_see_the_same_validation_loss(interval, anytime):
    """Of half of the validation samples; the other half is the outer loss's."""
    policy = validating_policy(5, anytime=anytime, strength=0.1)
    task, hypers = make_task(), hyper(0.05, 0.9, 0.999)
    inner = InnerTraining("adam", hypers, STEPS, anytime, batch_seed=7, validation_interval=interval)
    batched = rollout(task, inner, policy.function(), record=True)
    indices = batch_indices(inner, instances=INSTANCES, samples=task.train.inputs.shape[1], batch_size=task.batch_size)
    order = [next(indices) for _ in range(STEPS)]
    shown, scored = (torch.arange(20)[part] for part in (slice(None, 10), slice(10, None)))
    for i in range(INSTANCES):
        params = {k: torch.nn.Parameter(v.clone()) for k, v in NET.unflatten(task.theta[i]).items()}
        optimizer = torch.optim.Adam(list(params.values()), 0.05 * LRS[i])
        meta_lr = MetaLR(optimizer, None if anytime else STEPS, policy)
        for t in range(STEPS):
            if t and t % interval == 0:
                meta_lr.validation(NET.loss(params, task.valid.inputs[i, shown], task.valid.targets[i, shown]))
            rows = order[t][i]
            loss = NET.loss(params, task.train.inputs[i, rows], task.train.targets[i, rows])
            optimizer.zero_grad()
            loss.backward()
            meta_lr.step(loss)
            optimizer.step()
            difference = (meta_lr._features[0] - batched.records[t].features[i]).abs()
            worst = int(difference.argmax())
            assert float(difference.max()) < 5e-3, f"step {t}: {FEATURES[worst]}"
        valid = NET.loss(params, task.valid.inputs[i, scored], task.valid.targets[i, scored])
        final = batched.initial[i] * batched.curve[-1, i].exp()
        assert float(valid.detach()) == pytest.approx(float(final), rel=1e-2)
    recency = batched.records[-1].features[:, FEATURES.index("validation_recency")]
    assert bool((recency > 0.0).all()) == (interval < STEPS)
