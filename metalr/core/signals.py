"""What is measured of one training step: loss, gradient, parameter and update norms, and their alignment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.backend import HOST, TORCH, Backend, Number
from metalr.core.direction import Direction
from metalr.core.sample import GroupSample, ParameterSample

Size = TypeVar("Size")


class Signals(NamedTuple):
    """One step of R runs, float32, each of shape (R,); or of one run on the host, each a float.

    u is the direction that the optimizer applied last, for a unit rate; at the first step `before_first_update` says
    what stands for it.

    Attributes:
        loss: of this step's batch, in any unit, of either sign.
        grad_norm: |g|.
        param_norm: |w|.
        update_norm: |lr(0) u|, with each group's initial rate, so that group ratios count.
        alignment: cos(g, lr(0) u), in [-1, 1]; 0 at the first step.
        optimizer: +1 for SGD, -1 for any other.
    """

    loss: Number
    grad_norm: Number
    param_norm: Number
    update_norm: Number
    alignment: Number
    optimizer: Number


def alignment(xp: Backend, dot: Number, grad_norm: Number, update_norm: Number) -> Number:
    """Computes a cosine from a dot product and two norms; 0 where either norm is 0."""
    return xp.clip(dot / xp.clip(grad_norm * update_norm, 1e-30), -1.0, 1.0)


def before_first_update(is_sgd: bool, of_gradient: Size, of_sign: Size) -> Size:
    """Gives what stands for the size of u as long as nothing has been applied: that of the direction that comes.

    It is the gradient for SGD, and its sign for any other optimizer: what Adam and its kin begin with.

    Args:
        is_sgd: whether the optimizer is SGD, see `metalr.core.direction.Direction.is_sgd`.
        of_gradient: |g|, or its square.
        of_sign: the same of a vector of ones: the square root of the number of elements, or that number.
    """
    return of_gradient if is_sgd else of_sign


def measure(
    loss: Tensor | float,
    optimizer: Optimizer,
    base_lrs: Sequence[float],
    direction: Direction,
    sample: ParameterSample,
    on_host: bool = False,
) -> tuple[Signals, list[Tensor | None]]:
    """Reads the signals of a real run between `backward()` and `optimizer.step()`.

    Args:
        loss: a scalar.
        optimizer: with gradients in its parameters; one without a gradient counts as zero.
        base_lrs: lr_g(0) of each parameter group; one with 0 is frozen, and not looked at.
        direction: reads the direction that this optimizer applied last.
        sample: of the optimizer's parameters.
        on_host: bring them to the host, which waits for the parameters' device.

    Returns:
        Signals, of shape (1,) on the parameters' device, or floats; and the gathered rows of each group, for
        `direction.remember`, None for a group without a gradient.

    Raises:
        RuntimeError: when no parameter has a gradient.
    """
    groups = optimizer.param_groups
    parts = enumerate(zip(sample.groups, base_lrs, strict=True))
    rows = [direction.gather(index, part) if lr > 0 else None for index, (part, lr) in parts]
    updates = [None if row is None else direction.read(index, row) for index, row in enumerate(rows)]
    triples = zip(rows, updates, sample.groups, strict=True)
    sums = [_sums(row, update, part) for row, update, part in triples if row is not None]
    if not sums:
        _refuse_without_gradients(sample)
    whole = sample.total(torch.stack([part.to(sums[0].device) for part in sums]))
    xp = HOST if on_host else TORCH
    each: Iterable[Iterable[Number]] = whole.tolist() if on_host else whole.float()[..., None]

    zero: Number = 0.0
    grad_square = param_square = update_square = product = zero
    measured = iter(each)
    for group, part, row, update, lr in zip(groups, sample.groups, rows, updates, base_lrs, strict=True):
        if row is None:
            continue
        grad, param, square, dot = next(measured)
        assumed = before_first_update(direction.is_sgd, grad, 0.0 * grad + float(part.count))
        if update is None:
            square = assumed
        elif not direction.is_sgd:  # 0 where a GradScaler skipped the first steps
            square = xp.where(square > 0, square, assumed)
        grad_square = grad_square + grad
        param_square = param_square + param
        update_square = update_square + lr * lr * square
        product = product + (-lr if group.get("maximize", False) else lr) * dot
    return _signals(xp, loss, grad_square, param_square, update_square, product, direction.is_sgd), rows


def _refuse_without_gradients(sample: ParameterSample) -> NoReturn:
    if any(getattr(p, "_post_accumulate_grad_hooks", None) for group in sample.groups for p in group.params):
        raise RuntimeError(
            "no parameter has a gradient, and hooks of theirs run inside backward(): where those step an optimizer, "
            "nothing is left to decide on; call optimizer.step() after loss.backward()"
        )
    raise RuntimeError(
        "no parameter has a gradient: call loss.backward() before meta_lr.step(loss), and "
        "optimizer.zero_grad() before loss.backward(), not after"
    )


def _sums(rows: Tensor, update: Tensor | None, sample: GroupSample) -> Tensor:
    """|g|^2, |w|^2, |u|^2 and <g, u> of one group, (4,); zeros for what has not been applied."""
    vectors = [sample.scaled(row) for row in ((rows[0], rows[1]) if update is None else (rows[0], rows[1], update))]
    squares = torch.stack([torch.linalg.vector_norm(vector) for vector in vectors]).square()
    if update is None:
        return torch.nn.functional.pad(squares, (0, 2))
    return torch.cat((squares, vectors[0].dot(vectors[2])[None]))


def _signals(
    xp: Backend, loss: Tensor | float, grad: Number, param: Number, update: Number, product: Number, is_sgd: bool
) -> Signals:
    """Makes signals from the loss, three squares and a dot product."""
    grad, param, update = xp.sqrt(grad), xp.sqrt(param), xp.sqrt(update)
    cosine = alignment(xp, product, grad, update)
    optimizer = 0.0 * grad + (1.0 if is_sgd else -1.0)
    value: Number = torch.as_tensor(loss).to(grad).reshape(1) if isinstance(grad, Tensor) else float(loss)
    return Signals(value, grad, param, update, cosine, optimizer)
