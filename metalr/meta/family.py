"""TaskFamily: a distribution over tasks, the door for tasks of one's own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from metalr.meta.task import Task


class TaskFamily(ABC):
    """Samples tasks of one kind. Subclass it to meta-train on tasks of your own.

    Example:
        >>> import torch
        >>> from metalr.meta import MLP, NetworkTask, Split, TaskFamily
        >>> class ParityTasks(TaskFamily):
        ...     def sample(self, instances, generator):
        ...         x = torch.randn(instances, 96, 8, generator=generator)
        ...         y = (x > 0).sum(-1) % 2
        ...         net = MLP(inputs=8, width=16, depth=1, outputs=2)
        ...         train, valid = Split(x[:, :64], y[:, :64]), Split(x[:, 64:], y[:, 64:])
        ...         return NetworkTask(net, net.initialise(instances, generator), train, valid, batch_size=16)
        >>> len(ParityTasks().sample(4, torch.Generator().manual_seed(0)))
        4

    Attributes:
        optimizer: the only optimizer of its tasks, a name out of `metalr.meta.hyperparameters.PRIORS`; None where
            `TaskDistribution` chooses it.
    """

    optimizer: str | None = None

    @abstractmethod
    def sample(self, instances: int, generator: torch.Generator) -> Task:
        """Samples a task with `instances` instances, on the CPU.

        All random numbers must come from the generator, so that a seed reproduces the task on any machine. Choose the
        network and the batch size from a small pool: each pair of them is compiled once.

        Args:
            instances: P.
            generator: of all random numbers.
        """
