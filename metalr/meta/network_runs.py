"""Networks as optimizees: R of them side by side, in three pure functions each compiled for itself.

`measure` is compiled once for a network, `update` once for an optimizer, whatever the number of parameters (Muon's,
which looks at each matrix, once for a network), so that few compilations serve many tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vmap

from metalr.meta.architectures import Net
from metalr.meta.batched_decision import compile_part
from metalr.meta.optimizers import OPTIMIZERS, BatchedOptimizer, Buffers, Hyper
from metalr.meta.task import InnerTraining, Measured, Optimizees

if TYPE_CHECKING:
    from metalr.meta.network_task import NetworkTask


class NetworkRuns(Optimizees):
    """R runs of a task's network.

    Args:
        task: P instances.
        inner: the inner training.
        copies: runs for each instance; they share initial parameters, batches and hyperparameters.
        compiled: run each step through torch.compile.

    Attributes:
        theta: parameters, (R, n).
        buffers: of the optimizer.
        step: updates done.
    """

    def __init__(self, task: NetworkTask, inner: InnerTraining, copies: int, compiled: bool) -> None:
        device, optimizer = task.device, OPTIMIZERS[inner.optimizer].on(task.net)
        self.task, self.copies = task, copies
        self.theta = task.theta.repeat(copies, 1)
        self.buffers = optimizer.start(self.theta)
        self.step = 0
        # Before the first update SGD's u stands for g, and any other's for its sign.
        kind, first = (1.0, 0.0) if optimizer.is_sgd else (-1.0, task.theta.shape[1] ** 0.5)
        self.kind, self.first = torch.tensor(kind, device=device), torch.tensor(first, device=device)
        self._hyper = Hyper(*(value.to(device) for value in inner.hyper.repeat(copies)))
        self.initial_lr = self._hyper.lr[:, 0]
        self._scale, self._frozen = task.scale.repeat(copies, 1), task.frozen.repeat(copies, 1)
        self._counts = torch.arange(inner.total_steps, device=device, dtype=torch.float32)
        self._optimizer = optimizer
        self._batches = zip(batch_indices(task, inner), dropout_noise(task, inner), strict=True)
        self._valid = task.valid.all(copies)
        self._grad = torch.zeros_like(self.theta)
        self._measure = _measure_part(task.net, compiled)
        self._update = _update_part(optimizer, compiled)
        self._validate = _validate_part(task.net, compiled)

    def measure(self) -> Measured:
        """On the next batch."""
        device = self._counts.device
        indices, noise = next(self._batches)
        batch = self.task.train.batch(indices.to(device), self.copies)
        inside = self._scale, self._frozen
        self._grad, seen = self._measure(self.theta, *inside, self.buffers.direction, *batch, noise.to(device))
        return seen

    def update(self, lr: Tensor) -> None:
        """By the task's optimizer."""
        corrections = self._optimizer.corrections(self._hyper, self._counts[self.step])
        self.theta, self.buffers = self._update(
            self.theta, self._grad, self.buffers, self._hyper, corrections, lr[:, None]
        )
        self.step += 1

    def validate(self) -> Tensor:
        """On all validation samples."""
        return self._validate(_inside(self.theta, self._scale, self._frozen), *self._valid)

    def detach(self) -> None:
        """Cuts the graph of earlier steps."""
        self._set([tensor.detach() for tensor in (self.theta, *self.buffers)])

    def _set(self, tensors: list[Tensor]) -> None:
        self.theta, *buffers = tensors
        self.buffers = Buffers(*buffers)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, buffers, and the number of the step; batches are drawn again."""
        return {"step": self.step, "tensors": [self.theta, *self.buffers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""
        self._set([tensor.to(self._counts.device) for tensor in state["tensors"]])
        self.step = int(state["step"])
        for _ in range(self.step):
            next(self._batches)


def batch_indices(task: NetworkTask, inner: InnerTraining) -> Iterator[Tensor]:
    """Samples of each step's batch, with replacement, (P, B)."""
    generator = torch.Generator().manual_seed(inner.batch_seed)
    own = slice(inner.first, inner.first + len(task))
    shape = (inner.drawn or len(task), task.batch_size)
    while True:
        yield torch.randint(task.train.inputs.shape[1], shape, generator=generator)[own]


def dropout_noise(task: NetworkTask, inner: InnerTraining) -> Iterator[Tensor]:
    """Each step's noise of the units that dropout may drop, in [0, 1), (B, units): the same for all runs.

    A pair of runs then differs by its rates alone.
    """
    generator = torch.Generator().manual_seed(inner.batch_seed)
    shape = (task.batch_size, task.net.dropout_units)
    while True:
        yield torch.rand(shape, generator=generator)


def _inside(theta: Tensor, scale: Tensor, frozen: Tensor) -> Tensor:
    """What the networks compute with: the trained parameters in their units, and the frozen ones."""
    return torch.cat((theta * scale, frozen), dim=1) if frozen.shape[1] else theta * scale


@cache
def _validate_part(net: Net, compiled: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Losses (R,) of the parameters inside the network, (R, n), on inputs and targets (R, N, ...)."""
    return compile_part(vmap(net.flat_loss), compiled)


@cache
def _measure_part(net: Net, compiled: bool) -> Callable[..., tuple[Tensor, Measured]]:
    batched = vmap(net.flat_training_loss, in_dims=(0, 0, 0, None))

    def total(
        theta: Tensor, scale: Tensor, frozen: Tensor, inputs: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses = batched(_inside(theta, scale, frozen), inputs, targets, noise)
        return losses.sum(), losses

    gradient = torch.func.grad_and_value(total, has_aux=True)

    def measure(
        theta: Tensor,
        scale: Tensor,
        frozen: Tensor,
        direction: Tensor,
        inputs: Tensor,
        targets: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Measured]:
        grad, (_, loss) = gradient(theta, scale, frozen, inputs, targets, noise)
        product = (grad * direction).sum(1)
        return grad, Measured(loss, grad.norm(dim=1), theta.norm(dim=1), direction.norm(dim=1), product)

    return compile_part(measure, compiled)


@cache
def _update_part(rule: BatchedOptimizer, compiled: bool) -> Callable[..., tuple[Tensor, Buffers]]:
    def update(
        theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, corrections: tuple[Tensor, ...], lr: Tensor
    ) -> tuple[Tensor, Buffers]:
        buffers = rule.direction(theta, grad, buffers, hyper, corrections)
        return rule.apply(theta, buffers.direction, lr, hyper), buffers

    return compile_part(update, compiled, dynamic=not rule.by_tensor)
