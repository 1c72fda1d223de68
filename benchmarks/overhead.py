"""Measures the cost of MetaLR: a training step with it against the same step without, interleaved in one process.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --models '[bert]' --optimizers '[adamw]' --pairs 12
    python -m benchmarks.overhead --models '[]' --sizes '[100000, 1000000, 10000000, 100000000, 1000000000]'

For each model and optimizer it prints the median step time without and with MetaLR, the medians of the pairs'
differences and ratios, and the ratio of the peaks of memory, each measured in a process of its own. On a CPU, time is
this process's CPU time, so that other work on the machine does not count; on an accelerator, the wall clock after
synchronisation. For parameter counts over decades it then prints the errors of norms and alignment on a sample,
against all parameters.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import median

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import Tensor, nn
from tqdm import tqdm

from metalr import MetaLR
from metalr.core.sample import LIMIT, ParameterSample
from models import MLP, ConvNet

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
}


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50(num_classes=10)


class Bert(nn.Module):
    """Tells two classes apart, by a BERT of a given size."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        heads = width // 64
        self.bert = BertForSequenceClassification(
            BertConfig(
                num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=4 * width
            )
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Maps tokens (N, L) to logits (N, 2)."""
        logits: Tensor = self.bert(tokens).logits
        return logits


@dataclass(frozen=True)
class Case:
    """Holds a model and the shape of its batches."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int = 10
    tokens: bool = False

    def batch(self, seed: int, device: str) -> tuple[Tensor, Tensor]:
        """Makes inputs and random targets; give another seed for each step.

        A single batch would be memorised, its gradient would vanish, and arithmetic on denormal numbers be measured.
        """
        generator = torch.Generator().manual_seed(seed)
        if self.tokens:
            inputs = torch.randint(1000, self.shape, generator=generator)
        else:
            inputs = torch.randn(self.shape, generator=generator)
        return inputs.to(device), torch.randint(self.classes, self.shape[:1], generator=generator).to(device)


MODELS = {
    "mlp": Case(MLP, (32, 1, 8, 8)),
    "convnet": Case(ConvNet, (32, 1, 8, 8)),
    "resnet50": Case(_resnet50, (128, 3, 32, 32)),
    "bert": Case(lambda: Bert(2, 128), (32, 64), classes=2, tokens=True),
    "bert-base": Case(lambda: Bert(12, 768), (32, 128), classes=2, tokens=True),
}
LARGE = ("resnet50", "bert", "bert-base")


class Arm:
    """Trains one model, with MetaLR or without."""

    def __init__(self, case: Case, optimizer: str, steps: int, learned: bool, device: str) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = case.make().to(device)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        if device != "cpu":  # rates on the device, so that the host never waits for it
            for group in self.optimizer.param_groups:
                group["lr"] = torch.tensor(group["lr"], device=device)
        self.meta_lr = MetaLR(self.optimizer, steps) if learned else None

    def step(self, inputs: Tensor, targets: Tensor) -> float:
        """Trains one step, and returns its seconds."""
        clock = time.process_time if self.device == "cpu" else time.perf_counter
        start = clock()
        loss = F.cross_entropy(self.model(inputs), targets)
        self.optimizer.zero_grad()
        loss.backward()
        if self.meta_lr is not None:
            self.meta_lr.step(loss)
        self.optimizer.step()
        if self.device != "cpu":
            torch.accelerator.synchronize()
        return clock() - start


@dataclass(frozen=True)
class Times:
    """Holds medians over pairs of steps: seconds without and with MetaLR, of the difference, and the ratio."""

    without: float
    learned: float
    more: float
    ratio: float


def _times(name: str, optimizer: str, pairs: int, device: str) -> Times:
    case = MODELS[name]
    arms = [Arm(case, optimizer, pairs, learned, device) for learned in (False, True)]
    rows: list[tuple[float, float]] = []
    for index in tqdm(range(pairs), desc=f"{name} {optimizer}"):
        batch = case.batch(index, device)
        order = (0, 1) if index % 2 == 0 else (1, 0)  # neither arm always runs on the other's caches
        seconds = {which: arms[which].step(*batch) for which in order}
        rows.append((seconds[0], seconds[1]))
    kept = rows[min(3, pairs // 2) :]  # the first ones warm up
    return Times(
        median(a for a, _ in kept),
        median(b for _, b in kept),
        median(b - a for a, b in kept),
        median(b / a for a, b in kept),
    )


def _peak(name: str, optimizer: str, learned: bool, device: str, threads: int) -> float:
    """Returns the peak memory of three steps, MiB: of the device, or of this process."""
    torch.set_num_threads(threads)
    arm = Arm(MODELS[name], optimizer, 10, learned, device)
    for seed in range(3):
        arm.step(*MODELS[name].batch(seed, device))
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return torch.cuda.max_memory_allocated() / 2**20


def _memory_ratio(name: str, optimizer: str, device: str, threads: int) -> float:
    peaks = []
    for learned in (False, True):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # a process keeps its peak
            peaks.append(pool.submit(_peak, name, optimizer, learned, device, threads).result())
    return peaks[1] / peaks[0]


def _sampling_errors(size: int, limit: int) -> dict[str, float]:
    """Computes relative errors of |w| and |g|, and the error of the alignment, on a sample of `limit` elements.

    The parameters w are eight tensors whose sizes and scales differ by factors of 2, with a scale for each row; g is w
    plus w shifted by a row.
    """
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([2.0**-i for i in range(8)])
    params = []
    for index, share in enumerate((shares / shares.sum()).tolist()):
        rows = max(1, round(math.sqrt(size * share)))
        values = torch.randn(rows, rows, generator=generator)
        values.mul_(2.0**index * torch.rand(rows, 1, generator=generator))
        params.append(nn.Parameter(values))
        params[-1].grad = values + values.roll(1, 0)
    optimizer = torch.optim.SGD(params, lr=0.1)
    (group,) = ParameterSample(optimizer, limit).groups
    with torch.no_grad():
        w, g = group.scaled(group.gather(params, [p.grad for p in params]))
    sums = [(float(p.detach().double().square().sum()), p, p.grad) for p in params]
    full_w = sum(square for square, _, _ in sums) ** 0.5
    full_g = sum(float(d.double().square().sum()) for _, _, d in sums if d is not None) ** 0.5
    full_dot = sum(float((p.detach().double() * d).sum()) for _, p, d in sums if d is not None)
    cosine = float(w.double().dot(g.double())) / (float(w.double().norm()) * float(g.double().norm()))
    return {
        "parameter_norm": abs(float(w.double().norm()) / full_w - 1.0),
        "gradient_norm": abs(float(g.double().norm()) / full_g - 1.0),
        "alignment": abs(cosine - full_dot / (full_w * full_g)),
    }


def main(
    models: tuple[str, ...] = ("mlp", "convnet", "resnet50", "bert"),
    optimizers: tuple[str, ...] = tuple(OPTIMIZERS),
    pairs: int | None = None,
    memory: bool = True,
    sizes: tuple[int, ...] = (10**5, 10**6, 10**7, 10**8),
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Measures every model with every optimizer, and the sample's error over sizes.

    Args:
        models: names out of mlp, convnet, resnet50, bert (2 layers) and bert-base.
        optimizers: names out of sgd, adamw and rmsprop.
        pairs: number of pairs of steps; None for 1,000 with small models and 12 with large ones.
        memory: whether to measure the peak memory of large models, too.
        sizes: numbers of parameters for the sample's errors; 1e9 takes some 20 GB.
        threads: number of torch's threads.
        device: "cpu" or "cuda".
    """
    for kind, given, known in (("models", models, tuple(MODELS)), ("optimizers", optimizers, tuple(OPTIMIZERS))):
        if set(given) - set(known):
            raise ValueError(f"{kind}={given}: choose out of {', '.join(known)}")
    torch.set_num_threads(threads)
    lines = []
    print(f"{'model':<10}{'optimizer':<10}{'without ms':>11}{'with ms':>9}{'more ms':>9}{'ratio':>8}{'memory':>8}")
    for name in models:
        for optimizer in optimizers:
            times = _times(name, optimizer, pairs or (12 if name in LARGE else 1000), device)
            cells = [1e3 * times.without, 1e3 * times.learned, 1e3 * times.more]
            peak = _memory_ratio(name, optimizer, device, threads) if memory and name in LARGE else None
            row = f"{name:<10}{optimizer:<10}{cells[0]:>11.3f}{cells[1]:>9.3f}{cells[2]:>9.3f}{times.ratio:>8.4f}"
            print(row + (f"{peak:>8.4f}" if peak else ""), flush=True)
            lines += [f"{name}_{optimizer}_ratio: {times.ratio:.4f}", f"{name}_{optimizer}_more_ms: {cells[2]:.3f}"]
            lines += [f"{name}_{optimizer}_memory_ratio: {peak:.4f}"] if peak else []
    for size in sizes:
        errors = _sampling_errors(size, LIMIT)
        lines += [f"sample_{size:.0e}_{key}_error: {value:.5f}" for key, value in errors.items()]
    print("\n".join(lines))


if __name__ == "__main__":
    auto_cli(main)
