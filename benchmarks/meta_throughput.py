"""Inner steps a second of meta-training, policy and features in the loop, as a share of the matrix-multiply limit.

    OMP_NUM_THREADS=1 python -m benchmarks.meta_throughput

The reference unit is a perceptron 64-32-10 on random 8x8 images, batch 64, Adam. Its limit is what the same number of
multiplications and additions would take as one product of two 1024 x 1024 matrices on the same device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jsonargparse import auto_cli

from metalr import LRPolicy
from metalr.meta import MLP, InnerTraining, NetworkTask, Split, Unroll
from metalr.meta.hyperparameters import Hyperparameters

SAMPLES, CLASSES = 512, 10


@dataclass(frozen=True)
class Unit:
    """Describes what is measured: R runs of one perceptron."""

    runs: int = 128
    width: int = 32
    batch_size: int = 64
    optimizer: str = "adam"
    compiled: bool = True

    @property
    def net(self) -> MLP:
        """Makes a perceptron with one hidden layer."""
        return MLP(width=self.width, depth=1)

    @property
    def operations(self) -> int:
        """Operations of one inner step, forward and backward; the first layer has no gradient of its inputs."""
        first, last = 64 * self.width, self.width * CLASSES
        return 2 * self.batch_size * (2 * first + 3 * last)

    def unroll(self, steps: int, device: torch.device) -> Unroll:
        """Makes runs that have not started, two an instance as in meta-training."""
        generator = torch.Generator().manual_seed(0)
        instances = self.runs // 2
        inputs = torch.rand(instances, SAMPLES, 64, generator=generator)
        split = Split(inputs, torch.randint(CLASSES, (instances, SAMPLES), generator=generator))
        theta = self.net.initialise(instances, generator)
        task = NetworkTask(self.net, theta, train=split, valid=split, batch_size=self.batch_size)
        inner = InnerTraining(self.optimizer, Hyperparameters.of(torch.full((instances, 1), 1e-3), 0.9, 0.999), steps)
        return Unroll(task.to(device), inner, copies=2, compiled=self.compiled)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _median_time(call: Callable[[], object], times: int, device: torch.device) -> float:
    taken = []
    for _ in range(times):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        taken.append(time.perf_counter() - start)
    return sorted(taken)[times // 2]


def steps_a_second(unit: Unit, steps: int, device: torch.device) -> tuple[float, float]:
    """Measures inner steps a second over blocks of 20 steps, and the seconds of the first step with compilation."""
    policy = LRPolicy.load("default").to(device)
    function = policy.function()
    block = 20
    with torch.no_grad():
        runs = unit.unroll(block * (steps // block) + 2, device)
        start = time.perf_counter()
        runs.advance(function)
        _wait(device)
        first = time.perf_counter() - start
        runs.advance(function)
        taken = _median_time(lambda: [runs.advance(function) for _ in range(block)], steps // block, device)
    return unit.runs * block / taken, first


def operations_a_second(device: torch.device) -> float:
    """Measures operations a second of a product of two 1024 x 1024 float32 matrices."""
    a, b = torch.randn(2, 1024, 1024, device=device)
    a @ b
    return 2 * 1024**3 / _median_time(lambda: a @ b, 15, device)


def main(
    device: str = "cpu", steps: int = 200, runs: Sequence[int] = (32, 64, 128, 512), widths: Sequence[int] = (32, 128)
) -> None:
    """Prints one line for each unit.

    Args:
        device: "cpu" or "cuda".
        steps: inner steps of each run that are timed.
        runs: numbers of runs side by side.
        widths: of the hidden layer; the first is the reference unit's.
    """
    place = torch.device(device)
    units = [Unit(runs=64, compiled=False)] + [Unit(runs=count, width=widths[0]) for count in runs]
    units += [Unit(width=width) for width in widths[1:]] + [Unit(optimizer="sgd")]
    head = ("runs", "width", "optimizer", "compiled", "steps/s", "limit", "share", "first")
    print("{:>5} {:>5} {:>9} {:>8} {:>9} {:>8} {:>6} {:>7}".format(*head))
    for unit in units:
        limit = operations_a_second(place) / unit.operations
        rate, first = steps_a_second(unit, steps, place)
        cells = f"{unit.runs:>5} {unit.width:>5} {unit.optimizer:>9} {unit.compiled!s:>8}"
        print(f"{cells} {rate:>9,.0f} {limit:>8,.0f} {rate / limit:>6.2f} {first:>6.1f}s", flush=True)


if __name__ == "__main__":
    auto_cli(main)
