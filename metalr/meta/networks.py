"""Networks as optimizees: R of them side by side, in three pure functions each compiled for itself.

`measure` is compiled once for a network, `update` once for an optimizer, whatever the number of parameters, so that
few compilations serve many tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vmap

from metalr.meta.inner import Inner, Measured, Optimizees
from metalr.meta.nets import Net
from metalr.meta.optimizers import OPTIMIZERS, Buffers, Hyper
from metalr.meta.step import compile_part

if TYPE_CHECKING:
    from metalr.meta.task import Task


class Networks(Optimizees):
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

    def __init__(self, task: Task, inner: Inner, copies: int, compiled: bool) -> None:
        device, optimizer = task.device, OPTIMIZERS[inner.optimizer]
        self.task, self.copies = task, copies
        self.theta = task.theta.repeat(copies, 1)
        self.buffers = optimizer.start(self.theta)
        self.step = 0
        # Before the first update SGD's u stands for g, and any other's for its sign.
        kind, first = (1.0, 0.0) if optimizer.is_sgd else (-1.0, task.theta.shape[1] ** 0.5)
        self.kind, self.first = torch.tensor(kind, device=device), torch.tensor(first, device=device)
        self._hyper = Hyper(*(value.to(device) for value in inner.hyper.repeat(copies)))
        self.initial_lr = self._hyper.lr[:, 0]
        self._scale = task.scale.repeat(copies, 1)
        self._counts = torch.arange(inner.total_steps, device=device, dtype=torch.float32)
        self._batches = batch_indices(task, inner)
        self._valid = task.valid.all(copies)
        self._grad = torch.zeros_like(self.theta)
        self._measure = _measure_part(task.net, compiled)
        self._update = _update_part(inner.optimizer, compiled)
        self._validate = _validate_part(task.net, compiled)

    def measure(self) -> Measured:
        """On the next batch."""
        batch = self.task.train.batch(next(self._batches).to(self._counts.device), self.copies)
        self._grad, seen = self._measure(self.theta, self._scale, self.buffers.direction, *batch)
        return seen

    def update(self, lr: Tensor) -> None:
        """By the task's optimizer."""
        count = self._counts[self.step]
        self.theta, self.buffers = self._update(self.theta, self._grad, self.buffers, self._hyper, count, lr[:, None])
        self.step += 1

    def validate(self) -> Tensor:
        """On all validation samples."""
        return self._validate(self.theta * self._scale, *self._valid)

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


def batch_indices(task: Task, inner: Inner) -> Iterator[Tensor]:
    """Samples of each step's batch, with replacement, (P, B)."""
    generator = torch.Generator().manual_seed(inner.batch_seed)
    own = slice(inner.first, inner.first + len(task))
    shape = (inner.drawn or len(task), task.batch_size)
    while True:
        yield torch.randint(task.train.inputs.shape[1], shape, generator=generator)[own]


@cache
def _validate_part(net: Net, compiled: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Losses (R,) of the parameters inside the network, (R, n), on inputs and targets (R, N, ...)."""
    return compile_part(vmap(net.flat_loss), compiled)


@cache
def _measure_part(net: Net, compiled: bool) -> Callable[..., tuple[Tensor, Measured]]:
    def total(theta: Tensor, scale: Tensor, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses = vmap(net.flat_loss)(theta * scale, inputs, targets)
        return losses.sum(), losses

    gradient = torch.func.grad_and_value(total, has_aux=True)

    def measure(
        theta: Tensor, scale: Tensor, direction: Tensor, inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, Measured]:
        grad, (_, loss) = gradient(theta, scale, inputs, targets)
        product = (grad * direction).sum(1)
        return grad, Measured(loss, grad.norm(dim=1), theta.norm(dim=1), direction.norm(dim=1), product)

    return compile_part(measure, compiled)


@cache
def _update_part(optimizer: str, compiled: bool) -> Callable[..., tuple[Tensor, Buffers]]:
    rule = OPTIMIZERS[optimizer]

    def update(
        theta: Tensor, grad: Tensor, buffers: Buffers, hyper: Hyper, count: Tensor, lr: Tensor
    ) -> tuple[Tensor, Buffers]:
        buffers = rule.direction(theta, grad, buffers, hyper, count)
        return rule.apply(theta, buffers.direction, lr, hyper), buffers

    return compile_part(update, compiled, dynamic=True)
