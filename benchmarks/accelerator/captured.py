"""Captured: forward, backward, decision and update in one CUDA graph, and the same rates as without."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.accelerator.report import Report, Setting, wait
from metalr import MetaLR

WARM_UP = 3
"""Ordinary steps before the capture."""


def captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """Takes `WARM_UP` steps, and captures the next in a CUDA graph; on the CPU, which has none, it stays as it is.

    Args:
        step: a training step that reads its batch from tensors that are filled in place.
        device: that it runs on.

    Returns:
        What takes one step.
    """
    if device.type != "cuda":
        for _ in range(WARM_UP):
            step()
        return step
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@dataclass(frozen=True)
class Case:
    """Describes a network and the shape of its images."""

    title: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _resnet18() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(num_classes=10)


CASES = {
    "perceptron": Case("perceptron 64-128-10, batch 32", _perceptron, (32, 1, 8, 8)),
    "resnet18": Case("ResNet-18, 128 x 3 x 32 x 32", _resnet18, (128, 3, 32, 32)),
}


class Training:
    """Trains a case with a rate on the device, learned or not.

    Attributes:
        meta_lr: None where the rate is not learned.
    """

    def __init__(self, case: Case, learned: bool, device: torch.device) -> None:
        torch.manual_seed(0)
        self._model = case.make().to(device)
        on_gpu = device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), lr=torch.tensor(1e-3, device=device), fused=True, capturable=on_gpu
        )
        self.meta_lr = MetaLR(self._optimizer, 10_000) if learned else None
        self._images = torch.empty(case.shape, device=device)
        self._labels = torch.zeros(case.shape[0], dtype=torch.long, device=device)

    def load(self, images: Tensor, labels: Tensor) -> None:
        """Fills the batch."""
        self._images.copy_(images)
        self._labels.copy_(labels)

    def step(self) -> None:
        """Trains one step on the batch."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self._model(self._images), self._labels)
        loss.backward()
        if self.meta_lr is not None:
            self.meta_lr.step(loss)
        self._optimizer.step()


def measure(setting: Setting, report: Report) -> None:
    """Reports each case's time a step, and how far the rates of a replayed graph are from those of ordinary steps."""
    steps = 4 if setting.smoke else 40
    for name in ("perceptron",) if setting.smoke else tuple(CASES):
        case = CASES[name]
        batches = _batches(case, WARM_UP + 1 + steps, setting.device)
        if not report.has(case=name, what="rates"):
            plain, replayed = (_rates(case, batches, graph, setting.device) for graph in (False, True))
            apart = max(abs(a / b - 1.0) for a, b in zip(replayed, plain, strict=True))
            report.add(case=name, title=case.title, what="rates", steps=steps, largest_difference=apart)
        for learned in (False, True):
            for graph in (False, True):
                key = {"case": name, "what": "time", "learned": learned, "graph": graph}
                if not report.has(**key) and setting.left > 0:
                    report.add(title=case.title, ms=_time(case, batches, learned, graph, setting.device), **key)


def _batches(case: Case, count: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        images = torch.randn(case.shape, generator=generator)
        labels = (images.flatten(1)[:, :10]).argmax(1)
        batches.append((images.to(device), labels.to(device)))
    return batches


def _started(
    case: Case, batches: list[tuple[Tensor, Tensor]], learned: bool, graph: bool, device: torch.device
) -> tuple[Training, Callable[[], None]]:
    """Takes the first steps, each on the first batch, and one on it that is captured."""
    training = Training(case, learned, device)
    training.load(*batches[0])
    if graph:
        return training, captured(training.step, device)
    for _ in range(WARM_UP):
        training.step()
    return training, training.step


def _rates(case: Case, batches: list[tuple[Tensor, Tensor]], graph: bool, device: torch.device) -> list[float]:
    training, step = _started(case, batches, True, graph, device)
    assert training.meta_lr is not None
    rates = []
    for batch in batches[WARM_UP + 1 :]:
        training.load(*batch)
        step()
        rates.append(training.meta_lr.last_lr[0])
    return rates


def _time(case: Case, batches: list[tuple[Tensor, Tensor]], learned: bool, graph: bool, device: torch.device) -> float:
    """Returns milliseconds a step."""
    training, step = _started(case, batches, learned, graph, device)
    times = []
    for _ in range(5):
        wait(device)
        start = time.perf_counter()
        for batch in batches[WARM_UP + 1 :]:
            training.load(*batch)
            step()
        wait(device)
        times.append(1e3 * (time.perf_counter() - start) / (len(batches) - WARM_UP - 1))
    return median(times)
