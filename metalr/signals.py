"""What is measured of one training step: loss, gradient, parameter and update norms, and their alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from metalr.direction import Direction


class Signals(NamedTuple):
    """One step of R runs, float32, each of shape (R,).

    u is the direction that the optimizer applied last, for a unit rate; at the first step, when nothing has been
    applied yet, it stands for the one that comes: the gradient for SGD, its sign for any other optimizer (what
    Adam and its kin begin with).

    Attributes:
        loss: of this step's batch, in any unit, of either sign.
        grad_norm: |g|.
        param_norm: |w|.
        update_norm: |lr(0) u|, with each group's initial rate, so that group ratios count.
        alignment: cos(g, lr(0) u), in [-1, 1]; 0 at the first step.
        optimizer: +1 for SGD, -1 for any other.
    """

    loss: Tensor
    grad_norm: Tensor
    param_norm: Tensor
    update_norm: Tensor
    alignment: Tensor
    optimizer: Tensor

    def finite(self) -> Tensor:
        """Where everything measured is finite, bool, shape (R,)."""
        total = self.loss + self.grad_norm + self.param_norm + self.update_norm + self.alignment
        return torch.isfinite(total)


def alignment(dot: Tensor, grad_norm: Tensor, update_norm: Tensor) -> Tensor:
    """Cosine from a dot product and two norms; 0 where either norm is 0."""
    return (dot / (grad_norm * update_norm).clamp_min(1e-30)).clamp(-1.0, 1.0)


def measure(loss: Tensor, optimizer: Optimizer, base_lrs: Sequence[float], direction: Direction) -> Signals:
    """Reads the signals of a real run between `backward()` and `optimizer.step()`.

    Args:
        loss: scalar tensor.
        optimizer: with gradients in its parameters; those without one do not count.
        base_lrs: lr_g(0) of each parameter group.
        direction: reads the direction that this optimizer applied last.

    Returns:
        Signals of shape (1,) on the parameters' device.

    Raises:
        RuntimeError: when no parameter has a gradient.
    """
    grads: list[Tensor] = []
    params: list[Tensor] = []
    updates: list[Tensor] = []
    dots: list[Tensor] = []
    for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
        own = [p for p in group["params"] if p.grad is not None]
        own_grads = [p.grad.detach() for p in own]
        params += [p.detach() for p in own]
        grads += own_grads
        sign = -base_lr if group.get("maximize", False) else base_lr
        for grad, update in zip(own_grads, direction.read(own, group), strict=True):
            if update is not None:
                updates.append(update * base_lr)
                dots.append(torch.dot(grad.flatten().float(), update.flatten().float()) * sign)
    if not grads:
        raise RuntimeError(
            "no parameter has a gradient: call loss.backward() before meta_lr.step(loss), and "
            "optimizer.zero_grad() before loss.backward(), not after"
        )
    grad_norm, param_norm = _norm(grads), _norm(params)
    if updates:
        update_norm = _norm(updates)
        cosine = alignment(torch.stack(dots).sum(), grad_norm, update_norm)
    else:
        update_norm = _first_update_norm(optimizer, base_lrs, direction.is_sgd)
        cosine = torch.zeros_like(grad_norm)
    kind = torch.full_like(grad_norm, 1.0 if direction.is_sgd else -1.0)
    values = (loss.detach().to(grad_norm), grad_norm, param_norm, update_norm, cosine, kind)
    return Signals(*(value.reshape(1) for value in values))


def _norm(tensors: list[Tensor]) -> Tensor:
    return get_total_norm(tensors).float()


def _first_update_norm(optimizer: Optimizer, base_lrs: Sequence[float], is_sgd: bool) -> Tensor:
    """|lr(0) u| of the update to come: u = g for SGD, sign(g) for any other."""
    pieces: list[Tensor] = []
    for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
        for param in group["params"]:
            if param.grad is not None:
                size = param.grad if is_sgd else torch.full((), param.numel() ** 0.5, device=param.device)
                pieces.append(size.detach() * base_lr)
    return _norm(pieces)
