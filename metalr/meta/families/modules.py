"""ModuleTasks: your own module and data as a task family."""

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
    """Samples trainings of one torch module on parts of one data set, to fine-tune a policy for your own work.

    Each instance has initial weights of its own and a random part of the training samples.

    Example:
        >>> import lightning as L
        >>> import torch
        >>> from torch import nn
        >>> from torch.utils.data import TensorDataset
        >>> from metalr.meta.families import ModuleTasks
        >>> x = torch.randn(400, 8)
        >>> samples = TensorDataset(x, (x.sum(1) > 0).long())
        >>> data = L.LightningDataModule.from_datasets(samples, samples, batch_size=32)
        >>> family = ModuleTasks(lambda: nn.Linear(8, 2), data, nn.functional.cross_entropy)
        >>> len(family.sample(3, torch.Generator().manual_seed(0)))
        3

    In YAML:

        family:
          class_path: metalr.meta.families.ModuleTasks
          init_args:
            module: own_tasks.MyLightningModule
            data: {class_path: own_tasks.MyDataModule}

    `ModuleNet` describes how inner runs treat dropout, batch norm and other buffers.

    Args:
        module: a module's class, or a function that makes one, with fresh weights at each call.
        data: training and validation samples, in batches that are pairs of tensors, (inputs, targets).
        loss: maps outputs and targets to the mean loss, above 0; None for a LightningModule, whose training_step is
            the loss.
        batch_sizes: one of which is chosen for a task; the data module's own by default.
        train_sizes: numbers of training samples, one of which is chosen for a task.
        valid_size: number of validation samples.
        limit: largest number of samples that are read of each split; all are held in memory.

    Raises:
        ValueError: at construction, for batches that are not pairs of tensors, for too few samples, or for a module
            that `torch.func.vmap` cannot batch.
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
        """Samples the batch size, parts of the data, and initial weights."""
        batch_size = pick(generator, self.batch_sizes)
        train_size = pick(generator, self.train_sizes)
        train = _parts(self._train, instances, train_size, generator)
        valid = _parts(self._valid, instances, self.valid_size, generator)
        return NetworkTask(self.net, self.net.initialise(instances, generator), train, valid, batch_size)


def _read(loader: Any, stage: str, least: int, limit: int) -> tuple[Tensor, Tensor]:
    """Samples of a loader, inputs (N, ...) and targets (N, ...), in the same order whatever the global seed."""
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
