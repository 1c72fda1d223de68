"""Your own module and data as a task family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from metalr.meta.families.pool import pick
from metalr.meta.family import TaskFamily
from metalr.meta.module_net import Criterion, ModuleNet
from metalr.meta.network_task import NetworkTask
from metalr.meta.split import Split


class ModuleTasks(TaskFamily):
    """Trainings of one torch module on parts of one data set: what to fine-tune a policy on for your own work.

    Each instance has initial weights of its own and a random part of the training samples. In YAML:

        family:
          class_path: metalr.meta.families.ModuleTasks
          init_args:
            module: own_tasks.MyLightningModule
            data: {class_path: own_tasks.MyDataModule}

    What inner runs make of dropout, batch norm and other buffers is told at `ModuleNet`.

    Args:
        module: a module's class, or a function that makes one, with fresh weights each time it is called.
        data: its training and validation samples. Their batches are pairs of tensors, (inputs, targets); in Python,
            `LightningDataModule.from_datasets(train, valid)` makes one of two data sets.
        loss: mean loss of a batch from outputs and targets, above 0; None for a LightningModule, whose training_step
            is the loss.
        batch_sizes: one drawn for a task; the data module's own by default.
        train_sizes: numbers of training samples, one drawn for a task.
        valid_size: number of validation samples.
        limit: samples that are read of each split, at most; all are held in memory.

    Raises:
        ValueError: when it is made, for batches that are no pairs of tensors, too few samples, or a module that cannot
            be trained many at once.
    """

    def __init__(
        self,
        module: Callable[[], nn.Module],
        data: L.LightningDataModule,
        loss: Criterion | None = None,
        batch_sizes: Sequence[int] | None = None,
        train_sizes: Sequence[int] = (256,),
        valid_size: int = 128,
        limit: int = 10_000,
    ) -> None:
        data.prepare_data()
        data.setup("fit")
        loader = data.train_dataloader()
        self.train_sizes, self.valid_size = tuple(train_sizes), valid_size
        self.batch_sizes = tuple(batch_sizes or (loader.batch_size,))
        self._train = _read(loader, "train", max(self.train_sizes), limit)
        self._valid = _read(data.val_dataloader(), "val", valid_size, limit)
        self.net = ModuleNet(module, loss)
        self.net.check(*(part[: self.batch_sizes[0]] for part in self._train))

    def sample(self, instances: int, generator: torch.Generator) -> NetworkTask:
        """Draws initial weights, parts of the data, and the batch size."""
        batch_size = pick(generator, self.batch_sizes)
        train_size = pick(generator, self.train_sizes)
        train = _parts(self._train, instances, train_size, generator)
        valid = _parts(self._valid, instances, self.valid_size, generator)
        return NetworkTask(self.net, self.net.initialise(instances, generator), train, valid, batch_size)


def _read(loader: Any, stage: str, least: int, limit: int) -> tuple[Tensor, Tensor]:
    """Samples of a loader, inputs (N, ...) and targets (N, ...), in an order that depends on nothing."""
    inputs: list[Tensor] = []
    targets: list[Tensor] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for batch in loader:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(map(torch.is_tensor, batch)):
                raise ValueError(
                    f"data's {stage}_dataloader gives a {type(batch).__name__}: make its batches pairs of tensors, "
                    "(inputs, targets)"
                )
            inputs.append(batch[0])
            targets.append(batch[1])
            if sum(map(len, inputs)) >= limit:
                break
    found = sum(map(len, inputs))
    if found < least:
        raise ValueError(
            f"data's {stage}_dataloader has {found} samples, and {least} are asked for: give smaller sizes"
        )
    return torch.cat(inputs)[:limit], torch.cat(targets)[:limit]


def _parts(samples: tuple[Tensor, Tensor], instances: int, size: int, generator: torch.Generator) -> Split:
    """A random part of the samples for each instance."""
    count = len(samples[0])
    rows = torch.stack([torch.randperm(count, generator=generator)[:size] for _ in range(instances)])
    return Split(samples[0][rows], samples[1][rows])
