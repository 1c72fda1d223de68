"""Measures samples a second of the image and table data modules, beside a plain loop and a training step.

    python -m benchmarks.data --data $METALR_DATA

`module` is the training loader of the data module, without workers; `plain` a loop over the same rows that decodes
and converts each to a tensor, without augmentation; `step` a training step of the model on the same batches. Time is
CPU time of one core, so that other work on the machine does not count; W workers deliver about W times `module`.
`benchmarks/text_data.py` does the same for text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as vision

from datamodules import AdultDataModule, CIFAR10DataModule, ImageNetDataModule, hub
from models import TabularMLP, VisionNet


@dataclass(frozen=True)
class Workload:
    """Holds a data module and what it is compared with.

    Attributes:
        module: data module with `num_workers=0`.
        plain: makes an iterable of single samples, without the data module.
        network: makes a network from a batch's inputs to logits.
    """

    module: Any
    plain: Callable[[], Iterable[Any]]
    network: Callable[[], nn.Module]


def _images(path: Path, split: str, column: str) -> Iterable[Tensor]:
    rows: Any = hub.load(str(path), None, split)
    for row in rows:
        yield vision.to_dtype(vision.pil_to_tensor(row[column].convert("RGB")), torch.float32, scale=True)


def _rows(path: Path) -> Iterable[list[Any]]:
    rows: Any = hub.load(str(path), None, "train")
    for row in rows:
        yield list(row.values())


def workloads(data: Path) -> dict[str, Workload]:
    """Returns the workloads by name; add a data module here to measure it."""
    adult = AdultDataModule(str(data / "adult"))
    return {
        "cifar10, ResNet-18": Workload(
            CIFAR10DataModule(str(data / "cifar10"), num_workers=0),
            lambda: _images(data / "cifar10", "train", "img"),
            lambda: VisionNet("resnet18", 10),
        ),
        "imagenet 176, ResNet-18": Workload(
            ImageNetDataModule(str(data / "imagenet"), batch_size=16, resolution=176, num_workers=0),
            lambda: _images(data / "imagenet", "train", "image"),
            lambda: VisionNet("resnet18", 1000),
        ),
        "adult, MLP": Workload(
            adult, lambda: _rows(data / "adult"), lambda: TabularMLP(6, [9, 17, 8, 15, 7, 6, 3, 42])
        ),
    }


def rate(batches: Iterable[Any], limit: int, size: Callable[[Any], int]) -> float:
    """Returns samples a second of this process's time over `limit` batches, after a first one as a warm-up."""
    batches = iter(batches)
    next(batches)
    start, samples = time.process_time(), 0
    for batch in islice(batches, limit):
        samples += size(batch)
    return samples / (time.process_time() - start)


def stepped(batch: list[Tensor], network: nn.Module, steps: int) -> Iterable[list[Tensor]]:
    """Yields the batch `steps` times, each time after a training step."""
    *inputs, labels = batch
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    loss = F.binary_cross_entropy_with_logits if labels.is_floating_point() else F.cross_entropy
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network(*inputs), labels).backward()
        optimizer.step()
        yield batch


def main(data: Path, batches: int = 50, steps: int = 2) -> None:
    """Prints the table.

    Args:
        data: folder with `cifar10`, `imagenet` and `adult` in the hub's layout.
        batches: number of batches to measure of each loader.
        steps: number of training steps to measure of each network.
    """
    torch.set_num_threads(1)
    print(f"{'':26s}{'module':>12s}{'plain':>12s}{'step':>12s}   samples/s of one core")
    for name, work in workloads(data).items():
        work.module.prepare_data()
        work.module.setup("fit")
        loader = work.module.train_dataloader()
        delivered = rate(loader, batches, lambda batch: len(batch[-1]))
        plain = rate(work.plain(), 1000, lambda _: 1)
        step = rate(stepped(next(iter(loader)), work.network(), steps + 1), steps, lambda batch: len(batch[-1]))
        print(f"{name:26s}{delivered:12,.0f}{plain:12,.0f}{step:12,.0f}")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
