"""A small classification problem with its own training loop, for tests that need a real run."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from metalr import MetaLR

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "sgd_plain": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-3),
}


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(8, 4, generator=generator)
    inputs = torch.randn(count, 16, 8, generator=generator)
    return [(x, (x @ teacher).argmax(1)) for x in inputs]


@dataclass
class Run:
    """A training run that can be stopped, stored and resumed."""

    model: nn.Module
    optimizer: Optimizer
    meta_lr: MetaLR
    rates: list[list[float]] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)

    def train(self, data: list[tuple[Tensor, Tensor]], change: Callable[[Tensor], Tensor] = lambda x: x) -> "Run":
        for x, y in data:
            loss = F.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.meta_lr.step(change(loss.detach()))
            self.optimizer.step()
            self.rates.append(self.meta_lr.last_lr)
            self.features.append(self.meta_lr._features)
        return self

    def state(self) -> dict:
        parts = (self.model.state_dict(), self.optimizer.state_dict(), self.meta_lr.state_dict())
        return copy.deepcopy(dict(zip(("model", "optimizer", "meta_lr"), parts, strict=True)))

    def load(self, state: dict) -> "Run":
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.meta_lr.load_state_dict(state["meta_lr"])
        return self


def make_run(optimizer: str, policy, total_steps: int | None = 40, seed: int = 0, **options) -> Run:
    model = make_model(seed)
    made = OPTIMIZERS[optimizer](model.parameters())
    return Run(model, made, MetaLR(made, total_steps, policy, **options))
