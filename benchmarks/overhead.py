"""What MetaLR costs: a training step with it against the same step without, interleaved in one process.

    python benchmarks/overhead.py

Prints, for each model and optimizer, the median step time without, with, their difference and their ratio.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the collections beside train.py

from metalr import MetaLR
from models import MLP, ConvNet

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
}


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50(num_classes=10)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (MLP, (32, 1, 8, 8)),
    "convnet": (ConvNet, (32, 1, 8, 8)),
    "resnet50": (_resnet50, (128, 3, 32, 32)),
}


class Arm:
    """One training run, with MetaLR or without."""

    def __init__(self, model: nn.Module, optimizer: str, steps: int, learned: bool) -> None:
        self.model = model
        self.optimizer = OPTIMIZERS[optimizer](model.parameters())
        self.meta_lr = MetaLR(self.optimizer, steps) if learned else None

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Seconds of one step."""
        start = time.perf_counter()
        loss = F.cross_entropy(self.model(inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()
        if self.meta_lr is not None:
            self.meta_lr.step(loss)
        self.optimizer.step()
        return time.perf_counter() - start


def _measure(model: str, optimizer: str, steps: int) -> tuple[float, float]:
    make, shape = MODELS[model]
    torch.manual_seed(0)
    arms = [Arm(make(), optimizer, steps, learned) for learned in (False, True)]
    inputs, targets = torch.randn(shape), torch.randint(10, shape[:1])
    times = [[arm.step(inputs, targets) for arm in arms] for _ in tqdm(range(steps), desc=f"{model} {optimizer}")]
    kept = times[min(3, steps // 2) :]  # the first ones warm up
    return median(t[0] for t in kept), median(t[1] for t in kept)


def main(models: tuple[str, ...] = tuple(MODELS), steps: int = 1000, large_steps: int = 12, threads: int = 1) -> None:
    """Measures every model with every optimizer.

    Args:
        models: out of mlp, convnet, resnet50.
        steps: pairs of steps of the small models.
        large_steps: pairs of steps of ResNet-50.
        threads: of torch.
    """
    unknown = set(models) - set(MODELS)
    if unknown:
        raise ValueError(f"models={models}: choose out of {', '.join(MODELS)}")
    torch.set_num_threads(threads)
    lines = []
    print(f"{'model':<10}{'optimizer':<10}{'without ms':>11}{'with ms':>9}{'more ms':>9}{'ratio':>8}")
    for model in models:
        for optimizer in OPTIMIZERS:
            without, learned = _measure(model, optimizer, large_steps if model == "resnet50" else steps)
            more, ratio = 1e3 * (learned - without), learned / without
            print(f"{model:<10}{optimizer:<10}{1e3 * without:>11.3f}{1e3 * learned:>9.3f}{more:>9.3f}{ratio:>8.4f}")
            lines += [f"{model}_{optimizer}_ratio: {ratio:.4f}", f"{model}_{optimizer}_more_ms: {more:.3f}"]
    print("\n".join(lines))


if __name__ == "__main__":
    auto_cli(main)
