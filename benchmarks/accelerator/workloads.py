"""The real workloads: data on the device, a whole step in one CUDA graph, learned against tuned schedules."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from benchmarks.accelerator import bundle
from benchmarks.accelerator.captured import WARM_UP, captured
from benchmarks.accelerator.report import Report, Setting, wait
from metalr import MetaLR
from metalr.schedules import HorizonLR

LEARNED = (1.0, 0.1)
"""Initial rates of the learned schedule, as multiples of the recipe's."""

TUNED = (1.0, 3.0, 1.0 / 3.0)
"""Those of the schedules set by hand."""


class Data(Protocol):
    """Holds a task's samples on the device."""

    size: int

    def inputs(self, index: Tensor) -> tuple[Tensor, ...]:
        """Gives training samples, augmented."""

    def labels(self, index: Tensor) -> Tensor:
        """Gives their classes."""

    def validation(self) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Yields the validation samples, a batch at a time."""


@dataclass(frozen=True)
class Recipe:
    """Describes how a network is trained.

    Attributes:
        title: of the table.
        data: on a device, out of the bundle.
        network: in training mode.
        optimizer: of parameters and a tensor rate.
        rate: that the recipe names.
        batch: samples of a step.
        epochs: passes over the data.
    """

    title: str
    data: Callable[[Setting], Data]
    network: Callable[[Setting], nn.Module]
    optimizer: Callable[[list[nn.Parameter], Tensor], Optimizer]
    rate: float
    batch: int
    epochs: int


def _minilm(setting: Setting) -> nn.Module:
    return bundle.minilm(setting.bundle)


def _resnet(name: str) -> Callable[[Setting], nn.Module]:
    def make(setting: Setting) -> nn.Module:
        from models.vision import VisionNet

        return VisionNet(name, cifar_stem=True).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    return make


def _adam(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return Adam(params, lr=lr, fused=True, capturable=lr.is_cuda)


def _adamw(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return AdamW(params, lr=lr, fused=True, capturable=lr.is_cuda)


def _sgd(params: list[nn.Parameter], lr: Tensor) -> Optimizer:
    return SGD(params, lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)


def _sentences(setting: Setting) -> Data:
    return bundle.Sentences(setting.bundle, setting.device)


def _images(setting: Setting) -> Data:
    return bundle.Images(setting.bundle, setting.device)


RECIPES = {
    "minilm-updated": Recipe(
        "MiniLM on SST-2, AdamW, 3e-5, batch 64, 3 epochs", _sentences, _minilm, _adamw, 3e-5, 64, 3
    ),
    "resnet18": Recipe(
        "ResNet-18 on CIFAR-10 (subset), SGD, batch 128, 15 epochs", _images, _resnet("resnet18"), _sgd, 0.05, 128, 15
    ),
    "minilm-original": Recipe(
        "MiniLM on SST-2, Adam, 5e-5, batch 32, 1 epoch", _sentences, _minilm, _adam, 5e-5, 32, 1
    ),
    "resnet50": Recipe(
        "ResNet-50 on CIFAR-10 (subset), SGD, batch 128, 15 epochs", _images, _resnet("resnet50"), _sgd, 0.05, 128, 15
    ),
}
"""By name, in the order in which they are run. MiniLM's are those of configs/compare/published.yaml."""

SMOKE_STEPS, SMOKE_BATCH = 6, 4


SCHEDULES = {"linear with warm-up": ("linear", 0.06), "cosine": ("cosine", 0.0)}
"""Shape and warm-up of those set by hand, as `metalr.schedules.HorizonLR` takes them."""


def hand_set(schedule: str, rate: float, steps: int) -> list[float]:
    """Lists the rates of a run's steps, which are then filled in where the graph reads them."""
    shape, warmup = SCHEDULES[schedule]
    optimizer = SGD([nn.Parameter(torch.zeros(()))], lr=rate)
    scheduler, rates = HorizonLR(optimizer, shape, steps, warmup=warmup), []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def plan() -> list[tuple[str, float]]:
    """Lists schedules and multiples of the recipe's rate: first each at the recipe's own."""
    runs = [("learned", times) for times in LEARNED]
    runs += [(name, times) for times in TUNED for name in SCHEDULES]
    return sorted(runs, key=lambda run: run[1] != 1.0)


def measure(setting: Setting, report: Report) -> None:
    """Trains every recipe with every schedule, as far as the time goes; called again, it goes on."""
    names = ("minilm-updated", "resnet18") if setting.smoke else tuple(RECIPES)
    for name in names:
        runs = [run for run in plan() if not report.has(recipe=name, schedule=run[0], times=run[1])]
        if not runs or setting.left <= 0:
            continue
        data = RECIPES[name].data(setting)
        for schedule, times in runs:
            if setting.left > 0:
                report.add(recipe=name, **_run(RECIPES[name], data, schedule, times, setting))


def _run(recipe: Recipe, data: Data, schedule: str, times: float, setting: Setting) -> dict[str, object]:
    """Trains once, and evaluates at the end."""
    torch.manual_seed(0)
    device = setting.device
    network = recipe.network(setting).to(device).train()
    rate = times * recipe.rate
    lr = torch.tensor(rate, device=device)
    optimizer = recipe.optimizer(list(network.parameters()), lr)
    batch = SMOKE_BATCH if setting.smoke else recipe.batch
    steps = SMOKE_STEPS if setting.smoke else recipe.epochs * (data.size // batch)
    meta_lr = MetaLR(optimizer, steps) if schedule == "learned" else None
    index = torch.zeros(batch, dtype=torch.long, device=device)
    batches = _indices(data.size, batch, steps, device)
    rates = [] if meta_lr is not None else hand_set(schedule, rate, steps)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            outputs = network(*data.inputs(index))
        loss = F.cross_entropy(_logits(outputs).float(), data.labels(index))
        loss.backward()
        if meta_lr is not None:
            meta_lr.step(loss)
        optimizer.step()

    def before(number: int) -> None:
        if meta_lr is None:
            lr.fill_(rates[number])
        index.copy_(next(batches))

    start = time.perf_counter()
    before(0)
    take = captured(step, device)  # the first steps are taken on one batch
    for number in range(WARM_UP, steps):
        before(number)
        take()
    wait(device)
    seconds = time.perf_counter() - start
    loss, accuracy = _evaluate(network, data)
    return {
        "title": recipe.title, "schedule": schedule, "times": times, "rate": rate, "steps": steps,
        "loss": loss, "accuracy": accuracy, "seconds": seconds,
    }  # fmt: skip


def _indices(size: int, batch: int, steps: int, device: torch.device) -> Iterator[Tensor]:
    """Yields a shuffled order's batches, without the last partial one of an epoch; the same in every run."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(-(-steps // (size // batch))):
        order = torch.randperm(size, generator=generator).to(device)
        yield from order[: size // batch * batch].split(batch)


def _logits(outputs: object) -> Tensor:
    logits: Tensor = getattr(outputs, "logits", outputs)  # type: ignore[assignment]
    return logits


@torch.no_grad()
def _evaluate(network: nn.Module, data: Data) -> tuple[float, float]:
    """Returns validation loss and accuracy."""
    network.eval()
    loss = right = count = 0.0
    for inputs, labels in data.validation():
        with torch.autocast(labels.device.type, dtype=torch.bfloat16):
            outputs = _logits(network(*inputs)).float()
        loss += float(F.cross_entropy(outputs, labels, reduction="sum"))
        right += float((outputs.argmax(1) == labels).sum())
        count += len(labels)
    return loss / count, right / count
