"""What is measured of one training step: loss, gradient, parameter and update norms, and their alignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.direction import Direction
from metalr.sample import GroupSample, ParameterSample


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


def measure(
    loss: Tensor, optimizer: Optimizer, base_lrs: Sequence[float], direction: Direction, sample: ParameterSample
) -> Signals:
    """Reads the signals of a real run between `backward()` and `optimizer.step()`.

    Args:
        loss: scalar tensor.
        optimizer: with gradients in its parameters; one without a gradient counts as zero.
        base_lrs: lr_g(0) of each parameter group.
        direction: reads the direction that this optimizer applied last.
        sample: of the optimizer's parameters.

    Returns:
        Signals of shape (1,) on the parameters' device.

    Raises:
        RuntimeError: when no parameter has a gradient.
    """
    groups = zip(sample.groups, optimizer.param_groups, base_lrs, strict=True)
    squares = [
        _group_squares(index, part, -lr if group.get("maximize", False) else lr, direction)
        for index, (part, group, lr) in enumerate(groups)
    ]
    rows = [row for row in squares if row is not None]
    if not rows:
        raise RuntimeError(
            "no parameter has a gradient: call loss.backward() before meta_lr.step(loss), and "
            "optimizer.zero_grad() before loss.backward(), not after"
        )
    total = torch.stack([row.to(rows[0].device) for row in rows]).sum(0) if len(rows) > 1 else rows[0]
    total = sample.total(total)
    grad_norm, param_norm, update_norm = total[:3].float().sqrt().unbind()
    cosine = alignment(total[3].float(), grad_norm, update_norm)
    kind = torch.full_like(grad_norm, 1.0 if direction.is_sgd else -1.0)
    values = (loss.detach().to(grad_norm), grad_norm, param_norm, update_norm, cosine, kind)
    return Signals(*(value.reshape(1) for value in values))


def _group_squares(index: int, sample: GroupSample, base_lr: float, direction: Direction) -> Tensor | None:
    """|g|^2, |w|^2, |lr(0) u|^2 and lr(0) <g, u> of one group, (4,); None where no parameter has a gradient."""
    grad = sample.gather(lambda p: p.grad)
    if grad is None:
        return None
    param = sample.gather(lambda p: p)
    update = direction.read(index, sample)
    grad_square = grad.dot(grad)
    param_square = param.dot(param) if param is not None else torch.zeros_like(grad_square)
    first = grad_square if direction.is_sgd else torch.full_like(grad_square, sample.count)
    if update is None:  # nothing has been applied yet: u = g for SGD, sign(g) for any other
        products = (first * base_lr**2, torch.zeros_like(grad_square))
    else:
        square = update.dot(update)
        if not direction.is_sgd:  # a fused optimizer whose first steps a GradScaler skipped has moments, all zero
            square = torch.where(square > 0, square, first)
        products = (square * base_lr**2, grad.dot(update) * base_lr)
    return torch.stack((grad_square, param_square, *products))
