"""A problem on which a run learns or does not: every batch is drawn anew, and a fifth of the labels are noise."""

import contextlib
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

STEPS, RATES = 200, (1e-3, 1e-2, 1e-1, 1.0)

Make = Callable[[nn.Module, float], Optimizer]


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    teacher = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    x = torch.randn(rows, 8, generator=generator)
    noise = torch.randint(4, (rows,), generator=generator)
    return x, torch.where(torch.rand(rows, generator=generator) < 0.2, noise, (x @ teacher).argmax(1))


def final_loss(make: Make, lr: float, drive: Callable[[Optimizer], Callable] | None = None) -> float:
    """Loss on rows that were not seen, of a run at a constant rate, or as `drive(optimizer)` sets it."""
    network, generator = make_network(), torch.Generator().manual_seed(1)
    optimizer = make(network, lr)
    decide = (lambda loss: None) if drive is None else drive(optimizer)
    curved = getattr(make, "curved", False)
    for _ in range(STEPS):
        x, y = draw(32, generator)

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), y)
            loss.backward(create_graph=curved)
            decide(loss.detach())
            return loss

        closure()
        optimizer.step(*([closure] if getattr(make, "closed", False) else []))
    x, y = draw(2000, torch.Generator().manual_seed(2))
    with torch.no_grad():
        loss = F.cross_entropy(network(x), y).item()
    return loss if math.isfinite(loss) else math.inf


def tuned_loss(make: Make) -> float:
    """The least loss of the constant rates; one at which the optimizer's own linear algebra fails does not count."""
    losses = []
    for lr in RATES:
        with contextlib.suppress(torch.linalg.LinAlgError):
            losses.append(final_loss(make, lr))
    return min(losses)
