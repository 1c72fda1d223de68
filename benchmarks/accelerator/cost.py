"""At no cost: a step with MetaLR against the same step without, interleaved, with memory and kernels."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.accelerator.loads import BATCHES, LOADS, SMALL, Load
from benchmarks.accelerator.report import Report, Setting, wait
from metalr import MetaLR

ARMS: dict[str, tuple[bool, bool, bool | None]] = {
    "none, float": (False, False, None),
    "learned, float": (True, False, None),
    "none, tensor": (False, True, None),
    "learned, tensor": (True, True, None),
    "learned, tensor, not fused": (True, True, False),
}
"""Whether the rate is learned, whether it is a tensor on the device, and whether the decision is fused."""

WARM_UP = 4
"""Steps of each arm that are not timed: allocations, and the compiler's work."""

STEPS = 4
"""Steps of a block: the device is waited for after each block."""


class Arm:
    """Trains a network by one optimizer; the arms of a load share the network, and each has its own moments."""

    def __init__(self, load: Load, network: nn.Module, name: str) -> None:
        learned, as_tensor, fuse = ARMS[name]
        device = next(network.parameters()).device
        lr = torch.tensor(1e-5, device=device) if as_tensor else 1e-5
        self._load, self._network, self._device = load, network, device
        self._batches = load.batches(device)
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=lr, fused=True)
        self._meta_lr = MetaLR(self._optimizer, 100_000, fused=fuse) if learned else None

    def step(self, index: int) -> None:
        """Trains one step."""
        loss = self._load.loss(self._network, self._batches[index % BATCHES])
        self._optimizer.zero_grad()
        loss.backward()
        if self._meta_lr is not None:
            self._meta_lr.step(loss)
        self._optimizer.step()

    def block(self) -> float:
        """Returns milliseconds a step over a block."""
        wait(self._device)
        start = time.perf_counter()
        for index in range(STEPS):
            self.step(index)
        wait(self._device)
        return 1e3 * (time.perf_counter() - start) / STEPS


def measure(setting: Setting, report: Report) -> None:
    """Measures every load."""
    for name, load in (SMALL if setting.smoke else LOADS).items():
        if not report.has(load=name, what="time") and setting.left > 0:
            _times(name, load, setting, report)
            _forget(setting.device)
        if not report.has(load=name, what="memory") and setting.left > 0:
            peaks = [_peak(load, arm, setting.device) for arm in ("none, tensor", "learned, tensor")]
            report.add(load=name, title=load.title, what="memory", without=peaks[0], learned=peaks[1])


def _times(name: str, load: Load, setting: Setting, report: Report) -> None:
    """Reports each arm's time, its ratio to the arm without, and the kernels of a step."""
    network = load.network(setting.device)
    size = sum(p.numel() for p in network.parameters())
    arms = {arm: Arm(load, network, arm) for arm in ARMS}
    for arm in arms.values():
        for index in range(WARM_UP):
            arm.step(index)
    blocks: list[dict[str, float]] = []
    for turn in range(3 if setting.smoke else 12):
        order = list(arms) if turn % 2 == 0 else list(arms)[::-1]
        blocks.append({arm: arms[arm].block() for arm in order})
    for arm in arms:
        without = "none, tensor" if "tensor" in arm else "none, float"
        report.add(
            load=name,
            title=load.title,
            parameters=size,
            what="time",
            arm=arm,
            ms=median(block[arm] for block in blocks),
            ratio=median(block[arm] / block[without] for block in blocks),
            kernels=kernels(lambda arm=arm: arms[arm].step(0), setting.device),  # type: ignore[misc]
        )


def kernels(call: Callable[[], None], device: torch.device) -> int:
    """Counts what a call gives to a GPU: kernels, copies and fills; on the CPU torch's operations."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        call()
        wait(device)
    if not on_gpu:
        return sum(each.count for each in seen.key_averages() if each.key.startswith("aten::"))
    return sum(each.device_type == torch.autograd.DeviceType.CUDA for each in seen.events())


def _peak(load: Load, arm: str, device: torch.device) -> float:
    """Returns the peak of the device's memory over some steps, MB; 0 on the CPU, whose peak is the process's."""
    trained = Arm(load, load.network(device), arm)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for index in range(WARM_UP):
        trained.step(index)
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else 0.0
    del trained
    _forget(device)
    return peak


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
