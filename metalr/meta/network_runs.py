"""NetworkRuns: networks as optimizees, R of them side by side.

A step is three pure functions, compiled one by one so that few compilations serve many tasks: `measure` and `validate`
once for a network, `update` once for an optimizer, whatever the number of parameters (Muon's once for a network).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from metalr.core.weight_structure import structure_sums
from metalr.meta.compilation import any_size, compile_part
from metalr.meta.hyperparameters import Hyperparameters
from metalr.meta.net import Net
from metalr.meta.optimizers import OPTIMIZERS, BatchedOptimizer, Buffers
from metalr.meta.split import Split, take
from metalr.meta.task import InnerTraining, Measured, Optimizees


class NetworkRuns(Optimizees):
    """Trains R = copies * P networks side by side.

    Copies of an instance share initial parameters, batches and hyperparameters.

    Args:
        net: the network of all runs.
        theta: initial parameters, (P, n).
        scale: of the parameters inside the network, see `metalr.meta.NetworkTask`, (P, n).
        frozen: values of the network's `frozen_shapes`, (P, their size).
        train: samples of the P instances to train on.
        valid: samples to validate on.
        batch_size: samples a step.
        inner: the inner training.
        copies: runs for each instance.
        compiled: run each step through torch.compile.

    Attributes:
        theta: parameters, (R, n).
        buffers: of the optimizer.
        step: updates done.
    """

    def __init__(
        self,
        *,
        net: Net,
        theta: Tensor,
        scale: Tensor,
        frozen: Tensor,
        train: Split,
        valid: Split,
        batch_size: int,
        inner: InnerTraining,
        copies: int,
        compiled: bool,
    ) -> None:
        device, optimizer = theta.device, OPTIMIZERS[inner.optimizer].for_tensors(net.shapes)
        self.copies = copies
        self.theta = theta.repeat(copies, 1)
        self.buffers = optimizer.start(self.theta)
        self.step = 0
        self.is_sgd = torch.tensor(optimizer.is_sgd, device=device)
        self.elements = torch.tensor(float(theta.shape[1]), device=device)
        self._hyper = inner.hyper.repeat(copies).to(device)
        self.initial_lr = self._hyper.lr[:, 0]
        structure, count = structure_sums(vmap(net.unflatten_trained)(theta).values()).to(theta)
        self.weight_structure = (structure / count.clamp(min=1.0)).expand(len(theta)).repeat(copies)
        epoch = train.inputs.shape[1] / batch_size if inner.epochs_known else 0.0
        self.steps_per_epoch = torch.full_like(self.initial_lr, epoch)
        self._scale, self._frozen = scale.repeat(copies, 1), frozen.repeat(copies, 1)
        self._counts = torch.arange(inner.total_steps, device=device, dtype=torch.float32)
        self._optimizer = optimizer
        indices = batch_indices(inner, instances=len(theta), samples=train.inputs.shape[1], batch_size=batch_size)
        noise = training_noise(inner, batch_size=batch_size, size=net.noise_size)
        self._batches = zip(indices, noise, strict=True)
        shown, scored = (valid, valid) if inner.validation_interval is None else valid.halves()
        self._train, self._samples, self._shown, self._valid = train, train.flat(), shown, scored.all(copies)
        self._origin = self.theta
        self._grad, self._sum = torch.zeros_like(self.theta), torch.zeros_like(self.theta)
        if compiled:
            for samples in self._samples:
                any_size(samples, dim=0)
        self._measure = _measure_part(net, compiled)
        self._update = _update_part(optimizer, compiled)
        self._validate = _validate_part(net, compiled)

    def measure(self) -> Measured:
        """Computes the gradient on the next batch, and what the policy reads of it."""
        device = self._counts.device
        indices, noise = next(self._batches)
        inputs, targets = self._samples
        self._grad, self._sum, seen = self._measure(
            theta=self.theta,
            origin=self._origin,
            gradients=self._sum,
            scale=self._scale,
            frozen=self._frozen,
            direction=self.buffers.direction,
            inputs=inputs,
            targets=targets,
            rows=self._train.rows(indices.to(device)),
            noise=noise.to(device),
        )
        return seen

    def update(self, lr: Tensor) -> None:
        """Applies the gradient measured last, at rates (R,), by the task's optimizer."""
        corrections = self._optimizer.corrections(self._hyper, self._counts[self.step])
        self.theta, self.buffers = self._update(
            self.theta, self._grad, self.buffers, self._hyper, corrections, lr[:, None]
        )
        self.step += 1

    def validate(self) -> Tensor:
        """Computes the mean loss on the validation samples that are not shown, (R,)."""
        return self._validate(_inside(self.theta, self._scale, self._frozen), *self._valid)

    def shown_validation(self) -> Tensor:
        """Computes the mean loss on those that are, (R,)."""
        return self._validate(_inside(self.theta, self._scale, self._frozen), *self._shown.all(self.copies))

    def detach(self) -> None:
        """Detaches parameters and buffers from the graph of earlier steps."""
        self._set([tensor.detach() for tensor in (self.theta, self._sum, *self.buffers)])

    def _set(self, tensors: list[Tensor]) -> None:
        self.theta, self._sum, *buffers = tensors
        self.buffers = Buffers(*buffers)

    def state_dict(self) -> dict[str, Any]:
        """Returns parameters, buffers and the number of the step; batches follow from the seed."""
        return {"step": self.step, "tensors": [self.theta, self._sum, *self.buffers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`, on runs of the same task that have not started."""
        self._set([tensor.to(self._counts.device) for tensor in state["tensors"]])
        self.step = int(state["step"])
        for _ in range(self.step):
            next(self._batches)


def batch_indices(inner: InnerTraining, *, instances: int, samples: int, batch_size: int) -> Iterator[Tensor]:
    """Yields the samples of each step's batch, chosen with replacement, (instances, batch_size).

    Args:
        inner: the inner training, with the seed of the batches.
        instances: P.
        samples: N, of each instance.
        batch_size: B.
    """
    generator = torch.Generator().manual_seed(inner.batch_seed)
    while True:
        yield torch.randint(samples, (instances, batch_size), generator=generator)


def training_noise(inner: InnerTraining, *, batch_size: int, size: int) -> Iterator[Tensor]:
    """Yields each step's noise of dropout or augmentation, uniform in [0, 1), (batch_size, size).

    All runs share it, so that the two runs of a pair differ by their rates alone.
    """
    generator = torch.Generator().manual_seed(inner.batch_seed)
    while True:
        yield torch.rand((batch_size, size), generator=generator)


def _inside(theta: Tensor, scale: Tensor, frozen: Tensor) -> Tensor:
    """Returns what the networks compute with: the trained parameters in their units, and the frozen ones."""
    return torch.cat((theta * scale, frozen), dim=1) if frozen.shape[1] else theta * scale


@cache
def _validate_part(net: Net, compiled: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Maps the parameters inside the network (R, n), inputs and targets (R, N, ...) to losses (R,)."""
    return compile_part(vmap(net.flat_loss), compiled)


@cache
def _measure_part(net: Net, compiled: bool) -> Callable[..., tuple[Tensor, Tensor, Measured]]:
    batched = vmap(net.flat_training_loss, in_dims=(0, 0, 0, None))

    def total(
        theta: Tensor, scale: Tensor, frozen: Tensor, inputs: Tensor, targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses = batched(_inside(theta, scale, frozen), inputs, targets, noise)
        return losses.sum(), losses

    gradient = torch.func.grad_and_value(total, has_aux=True)

    def measure(
        theta: Tensor,
        origin: Tensor,
        gradients: Tensor,
        scale: Tensor,
        frozen: Tensor,
        direction: Tensor,
        inputs: Tensor,
        targets: Tensor,
        rows: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Measured]:
        copies = len(theta) // len(rows)
        chosen = take(inputs, rows, copies), take(targets, rows, copies)
        grad, (_, loss) = gradient(theta, scale, frozen, *chosen, noise)
        gradients, travelled = gradients + grad, origin - theta
        measured = Measured(
            loss=loss,
            grad_norm=grad.norm(dim=1),
            param_norm=theta.norm(dim=1),
            direction_norm=direction.norm(dim=1),
            product=(grad * direction).sum(1),
            travel=travelled.norm(dim=1),
            origin_product=(grad * travelled).sum(1),
            sum_norm=gradients.norm(dim=1),
            sum_absolute=gradients.abs().sum(1),
        )
        return grad, gradients, measured

    return compile_part(measure, compiled)


@cache
def _update_part(optimizer: BatchedOptimizer, compiled: bool) -> Callable[..., tuple[Tensor, Buffers]]:
    def update(
        theta: Tensor,
        grad: Tensor,
        buffers: Buffers,
        hyper: Hyperparameters,
        corrections: tuple[Tensor, ...],
        lr: Tensor,
    ) -> tuple[Tensor, Buffers]:
        buffers = optimizer.direction(theta, grad, buffers, hyper, corrections)
        return optimizer.apply(theta, buffers.direction, lr, hyper), buffers

    return compile_part(update, compiled, dynamic=not optimizer.by_tensor)
