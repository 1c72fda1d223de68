"""Optimizers to try a training with: torch's, those of other packages, and how each is made.

`MAKERS` has every optimizer of torch and of pytorch_optimizer with a rate from which its run begins; `REFUSED` has
those that MetaLR refuses, and what it says.
"""

import inspect
from collections.abc import Callable

import pytorch_optimizer
import torch
from dadaptation import DAdaptAdam, DAdaptSGD
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree, ScheduleFreeWrapper
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Adafactor as HubAdafactor


class Lion(Optimizer):
    """Chen et al. 2023 (arXiv:2302.06675), algorithm 2: the sign of an interpolated momentum."""

    def __init__(self, params, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                update = torch.lerp(p.grad, average, beta1).sign_()
                p.mul_(1.0 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * update)
                average.lerp_(p.grad, 1.0 - beta2)
        return loss


class Lookahead(Optimizer):
    """Zhang et al. 2019 (arXiv:1907.08610): every k steps, half of the way back. It wraps another in `.optimizer`."""

    def __init__(self, optimizer: Optimizer, k: int = 3) -> None:
        self.optimizer, self.k, self.count = optimizer, k, 0
        self.slow = [[p.detach().clone() for p in group["params"]] for group in optimizer.param_groups]
        super().__init__(optimizer.param_groups, optimizer.defaults)
        self.param_groups, self.state = optimizer.param_groups, optimizer.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        loss = self.optimizer.step(closure)
        self.count += 1
        if self.count % self.k == 0:
            for group, slow in zip(self.param_groups, self.slow, strict=True):
                for p, s in zip(group["params"], slow, strict=True):
                    p.copy_(s.lerp_(p, 0.5))
        return loss


class ClosureSAM(torch.optim.SGD):
    """Foret et al. 2021 (arXiv:2010.01412) with a closure, which it calls at the weights and at the perturbed ones."""

    rho = 0.05

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:
        closure = torch.enable_grad()(closure)
        loss = closure()
        noise = _ascent(self, self.rho)
        closure()
        for p, e in noise:
            p.sub_(e)
        super().step()
        return loss


class PassSAM(Optimizer):
    """The same around any optimizer, for a loop that takes the two backward passes itself."""

    def __init__(self, params, base: Callable[..., Optimizer], rho: float = 0.05) -> None:
        self.base_optimizer, self.rho = base(params), rho
        super().__init__(self.base_optimizer.param_groups, self.base_optimizer.defaults)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        self.kept = [(p, p.detach().clone()) for group in self.param_groups for p in group["params"]]
        _ascent(self, self.rho)

    @torch.no_grad()
    def second_step(self) -> None:
        for p, w in self.kept:
            p.data = w
        self.base_optimizer.step()


def _ascent(optimizer: Optimizer, rho: float) -> list[tuple[Tensor, Tensor]]:
    """Moves parameters up their gradients to a distance of rho, and returns by how much."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.stack([p.grad.norm() for p in params]).norm()
    noise = [(p, rho * p.grad / norm) for p in params]
    for p, e in noise:
        p.add_(e)
    return noise


def schedule_free(params) -> Optimizer:
    optimizer = AdamWScheduleFree(params, lr=1e-2)
    optimizer.train()
    return optimizer


TORCH: dict[str, Callable[..., Optimizer]] = {
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=1e-2),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=1e-2),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=1e-2),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
}

OTHERS: dict[str, Callable[..., Optimizer]] = {
    "Lion": lambda p: Lion(p, lr=1e-3, weight_decay=0.01),
    "Lookahead": lambda p: Lookahead(torch.optim.SGD(p, lr=0.1)),
    "transformers Adafactor": lambda p: HubAdafactor(p, lr=1e-2, relative_step=False, scale_parameter=False),
}

STEP_FINDERS: dict[str, Callable[..., Optimizer]] = {
    "Prodigy": lambda p: Prodigy(p, lr=1.0),
    "DAdaptAdam": lambda p: DAdaptAdam(p, lr=1.0),
    "DAdaptSGD": lambda p: DAdaptSGD(p, lr=1.0),
    "schedule-free AdamW": schedule_free,
    "schedule-free wrapper": lambda p: ScheduleFreeWrapper(torch.optim.SGD(p, lr=0.1)),
    "another schedule-free wrapper": lambda p: pytorch_optimizer.ScheduleFreeWrapper(torch.optim.SGD(p, lr=0.1)),
    "TRAC": lambda p: pytorch_optimizer.TRAC(torch.optim.AdamW(p, lr=1e-3)),
    "LBFGS": torch.optim.LBFGS,
}
"""What finds its own step or averages in place of a schedule: refused."""


class Maker:
    """Makes one optimizer for a network.

    Args:
        kind: its class.
        lr: the rate from which a run with MetaLR begins.
        whole: whether it takes the network itself.
        mixed: whether it takes matrices and the rest apart, by `use_muon`.
        curved: whether it takes second derivatives, of a graph of the gradient.
        closed: whether its step needs a closure.
        options: what else it is made with.
    """

    def __init__(self, kind, lr, whole=False, mixed=False, curved=False, closed=False, **options) -> None:
        self.kind, self.lr, self.options = kind, lr, options
        self.whole, self.mixed, self.curved, self.closed = whole, mixed, curved, closed

    def __call__(self, network: nn.Module, lr: float | None = None) -> Optimizer:
        rate = {} if lr is None else {"lr": lr}
        params = network if self.whole else list(network.parameters())
        if self.mixed:
            matrices, rest = ([p for p in params if (p.ndim == 2) == is_matrix] for is_matrix in (True, False))
            params = [{"params": matrices, "use_muon": True, **rate}, {"params": rest, "use_muon": False, **rate}]
            rate = {}
        return self.kind(params, **rate, **self.options)


def _default_rate(kind: type[Optimizer]) -> float | None:
    rate = inspect.signature(kind.__init__).parameters.get("lr")
    return float(rate.default) if rate is not None and isinstance(rate.default, (int, float)) else None


MIXED = ("muon", "adamuon", "normuon", "muonclip", "adago")
CURVED = ("adahessian", "sophiah")
START = {"accsgd": 0.1, "kate": 1e-4, "lars": 1.0, "magma": 1e-3, "sara": 1e-3, "sgd": 0.1, "sgdw": 0.1}
OPTIONS: dict[str, dict] = {
    "adafactor": {"relative_step": False},
    "adammini": {"whole": True},
    "bsam": {"num_data": 256, "closed": True},
    "ranger21": {"num_iterations": 200},
}
LEFT_OUT = {
    "demo": "needs einops and ranks",
    "distributedmuon": "needs ranks",
    "spectralsphere": "takes matrices alone",
    "lomo": "updates by a call of its own in place of backward()",
    "adalomo": "likewise",
}
"""What is no optimizer of a plain loop on one process."""

REFUSED = {
    "a2grad": "has no 'lr'",
    "alig": "has no 'lr'",
    "ftrl": "would go to zero",
    "lbfgs": "searches for its own step size",
    **dict.fromkeys(
        ("dadaptadagrad", "dadaptadam", "dadaptadan", "dadaptlion", "dadaptsgd", "prodigy"), "own step size"
    ),
    "splus": "averages its iterates",
    **dict.fromkeys(("schedulefreeadamw", "schedulefreeradam", "schedulefreesgd"), "averages its iterates"),
}

BEHIND = {
    "adago": "at 1.11 times",
    "lars": "steps of a thousandth of the weights",
}
"""What is driven, and ends behind a tuned constant rate in a run as short as that of `learning`."""


def _of_package(name: str) -> Maker:
    kind = pytorch_optimizer.load_optimizer(name)
    flags = {"mixed": name in MIXED, "curved": name in CURVED}
    return Maker(kind, START.get(name, _default_rate(kind)), **flags, **OPTIONS.get(name, {}))


MAKERS: dict[str, Maker] = {
    **{name: _of_package(name) for name in pytorch_optimizer.get_supported_optimizers() if name not in LEFT_OUT},
    **{f"torch.{name}": Maker(getattr(torch.optim, name), _default_rate(getattr(torch.optim, name))) for name in TORCH},
}
