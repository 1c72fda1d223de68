"""The measurements of one training step: loss, gradient, parameter and update norms, and their alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.optim import Optimizer

from metalr.core.backend import HOST, Backend, Mask, Number
from metalr.core.direction import Direction, Gathered
from metalr.core.origin import Origin
from metalr.core.sample import GroupSample, ParameterSample


class Signals(NamedTuple):
    """Holds the signals of one step of R runs, float32, each of shape (R,); or of one run on the host, each a float.

    u is the direction that the optimizer applied last, for a unit rate; at the first step `applied_size` says what
    stands for it.

    Attributes:
        loss: of this step's batch, in any unit, of either sign.
        grad_norm: |g|.
        param_norm: |w|.
        update_norm: |lr(0) u|, with each group's initial rate, so that group ratios count.
        alignment: cos(g, lr(0) u), in [-1, 1]; 0 at the first step.
        optimizer: +1 for SGD, -1 for any other.
        travel: |w - w_0|, from where the run began.
        origin_product: <g, w_0 - w>.
        distance_scale: what turns a sum of `origin_product` into a lower bound of the distance to the solution, see
            `distance_scale`.
        weight_structure: how far w_0 lies from random weights, nats, see `metalr.core.weight_structure`.
        validation: validation loss of w, NaN where there is none at this step; None for runs whose policy reads none.
        steps_per_epoch: optimizer steps of one pass over the training data, 0 where that is unknown; None for runs
            whose policy does not read it.
    """

    loss: Number
    grad_norm: Number
    param_norm: Number
    update_norm: Number
    alignment: Number
    optimizer: Number
    travel: Number
    origin_product: Number
    distance_scale: Number
    weight_structure: Number
    validation: Number | None = None
    steps_per_epoch: Number | None = None


class GradientSums(NamedTuple):
    """Holds norms of s, the sum of all gradients so far, with the groups' initial rates; each of shape (R,).

    Attributes:
        square: sum over groups of lr |s|^2.
        lr_square: sum over groups of lr^2 |s|^2.
        absolute: sum over groups of lr |s|_1.
        ones_norm: |lr 1|, of a vector of ones.
    """

    square: Number
    lr_square: Number
    absolute: Number
    ones_norm: Number


def distance_scale(xp: Backend, is_sgd: Mask, sums: GradientSums) -> Number:
    """Gives c for which c * sum_k <g_k, w_0 - w_k> is a lower bound of the distance from w_0 to the solution.

    With s = sum_k g_k, the bound is that of D-Adaptation (Defazio and Mishchenko 2023, theorem 1), which holds for a
    convex loss whatever the steps were: in the Euclidean norm for SGD, c = 1 / |s|; for any other optimizer in the
    largest coordinate, as Prodigy has it (Mishchenko and Defazio 2024, algorithm 4), times the norm of a vector of
    ones. Groups' rates weigh their coordinates.

    Args:
        xp: backend of the numbers.
        is_sgd: (R,).
        sums: of the gradients so far.
    """
    euclidean = xp.sqrt(sums.lr_square) / xp.clip(sums.square, 1e-30)
    largest = sums.ones_norm / xp.clip(sums.absolute, 1e-30)
    return xp.where(is_sgd, euclidean, largest)


def alignment(xp: Backend, dot: Number, grad_norm: Number, update_norm: Number) -> Number:
    """Computes a cosine from a dot product and two norms; 0 where either norm is 0."""
    return xp.clip(dot / xp.clip(grad_norm * update_norm, 1e-30), -1.0, 1.0)


def applied_size(
    xp: Backend, is_sgd: bool | Mask, is_updated: bool | Mask, measured: Number, of_gradient: Number, of_sign: Number
) -> Number:
    """Gives the size of u; as long as nothing has been applied, that of the direction that comes.

    This is the gradient for SGD, and its sign for any other optimizer: what Adam and its kin begin with. Theirs is 0
    only where nothing has been applied, as after first steps that a GradScaler skipped.

    Args:
        xp: backend of the numbers.
        is_sgd: as `metalr.core.direction.Direction.is_sgd`: of each run, (R,), or of all.
        is_updated: whether an update came before this step; likewise.
        measured: |u|, or its square, (R,).
        of_gradient: |g|, or its square, (R,).
        of_sign: the same of a vector of ones: the square root of the number of elements, or that number, (R,).
    """
    coming = _either(xp, is_sgd, of_gradient, of_sign)
    if is_sgd is not True:  # an operation that each step of SGD goes without
        measured = _either(xp, is_sgd, measured, xp.where(measured > 0, measured, coming))
    return _either(xp, is_updated, measured, coming)


def _either(xp: Backend, condition: bool | Mask, if_true: Number, if_false: Number) -> Number:
    """Chooses a number for each run; for all of them, where the condition is known beforehand, without an operation."""
    if isinstance(condition, bool):
        return if_true if condition else if_false
    return xp.where(condition, if_true, if_false)


def measure(
    loss: Tensor | float,
    optimizer: Optimizer,
    base_lrs: Sequence[float],
    direction: Direction,
    sample: ParameterSample,
    origin: Origin | None = None,
) -> tuple[Reading, list[Gathered | None]]:
    """Reads a real run between `backward()` and `optimizer.step()`.

    Args:
        loss: a scalar.
        optimizer: with gradients in its parameters; one without a gradient counts as zero.
        base_lrs: lr_g(0) of each parameter group; one with 0 is frozen, and not looked at.
        direction: reads the direction that this optimizer applied last.
        sample: of the optimizer's parameters.
        origin: of the run, where the policy reads `metalr.core.features.ORIGIN_FEATURES`.

    Returns:
        What the signals are made of; and what is gathered of each group, for `direction.remember`, None for a group
        without a gradient.

    Raises:
        RuntimeError: when no parameter has a gradient.
    """
    groups = optimizer.param_groups
    pairs = enumerate(zip(sample.groups, base_lrs, strict=True))
    rows = [direction.gather(index, part) if lr > 0 else None for index, (part, lr) in pairs]
    updates = [None if row is None else direction.read(index, row) for index, row in enumerate(rows)]
    sums = [
        _sums(index, row, update, part, origin)
        for index, (row, update, part) in enumerate(zip(rows, updates, sample.groups, strict=True))
        if row is not None
    ]
    if not sums:
        _refuse_without_gradients(sample)
    whole = sample.total(torch.stack([part.to(sums[0].device) for part in sums]))
    parts = tuple(
        Part(lr, part.count, bool(group.get("maximize", False)), update is not None)
        for group, part, row, update, lr in zip(groups, sample.groups, rows, updates, base_lrs, strict=True)
        if row is not None
    )
    return Reading(loss, whole, parts, direction.is_sgd), rows


class Part(NamedTuple):
    """Holds what is known of a parameter group without measuring it.

    Attributes:
        lr: lr_g(0).
        size: number of elements that its sample stands for.
        maximize: whether the optimizer maximises.
        is_updated: whether it has been updated before.
    """

    lr: float
    size: int
    maximize: bool
    is_updated: bool


class Reading(NamedTuple):
    """Holds what is measured of one step where the parameters are, before any arithmetic on it.

    Attributes:
        loss: a scalar.
        sums: `GroupSums` of the groups that have gradients, (G, 10).
        parts: of these groups.
        is_sgd: see `metalr.core.direction.Direction`.
    """

    loss: Tensor | float
    sums: Tensor
    parts: tuple[Part, ...]
    is_sgd: bool

    def signals(self, xp: Backend) -> Signals:
        """Makes signals of it: floats on the host, which waits for the device, or tensors of shape (1,)."""
        measured = self.sums.tolist() if xp is HOST else self.sums.float()[..., None]
        total = Totals()
        for row, part in zip(measured, self.parts, strict=True):
            group = GroupSums(*row)
            ones = 0.0 * group.grad + float(part.size)
            update = applied_size(xp, self.is_sgd, part.is_updated, group.update, of_gradient=group.grad, of_sign=ones)
            group = group._replace(update=update)
            total = total.plus(group, part.lr, part.size, part.maximize)
        return _signals(xp, self.loss, total, self.is_sgd)


class GroupSums(NamedTuple):
    """Holds sums over one group's sample.

    Attributes:
        grad: |g|^2.
        param: |w|^2.
        update: |u|^2; 0 where nothing has been applied.
        product: <g, u>; likewise.
        travel: |w - w_0|^2.
        origin_product: <g, w_0 - w>.
        sum_square: |s|^2, of the sum of the gradients so far.
        sum_absolute: |s|_1.
        structure: of the first weights, times the number of elements that lie in matrices.
        structured: that number.
    """

    grad: Number
    param: Number
    update: Number
    product: Number
    travel: Number
    origin_product: Number
    sum_square: Number
    sum_absolute: Number
    structure: Number
    structured: Number


class Totals(NamedTuple):
    """Holds sums over all groups, with their initial rates lr where an update counts; see `GroupSums`."""

    grad: Number = 0.0
    param: Number = 0.0
    update: Number = 0.0
    product: Number = 0.0
    travel: Number = 0.0
    origin_product: Number = 0.0
    sum_square: Number = 0.0
    sum_lr_square: Number = 0.0
    sum_absolute: Number = 0.0
    structure: Number = 0.0
    structured: Number = 0.0
    ones: float = 0.0

    def plus(self, group: GroupSums, lr: float, count: int, maximize: bool) -> Totals:
        """Adds a group's sums; where the optimizer maximises, its update is negated."""
        sign = -1.0 if maximize else 1.0
        return Totals(
            grad=self.grad + group.grad,
            param=self.param + group.param,
            update=self.update + lr * lr * group.update,
            product=self.product + sign * lr * group.product,
            travel=self.travel + group.travel,
            origin_product=self.origin_product + sign * group.origin_product,
            sum_square=self.sum_square + lr * group.sum_square,
            sum_lr_square=self.sum_lr_square + lr * lr * group.sum_square,
            sum_absolute=self.sum_absolute + lr * group.sum_absolute,
            structure=self.structure + group.structure,
            structured=self.structured + group.structured,
            ones=self.ones + lr * lr * count,
        )


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


def _sums(index: int, rows: Gathered, update: Tensor | None, sample: GroupSample, origin: Origin | None) -> Tensor:
    """Measures `GroupSums` of one group, (10,); zeros for what has not been applied, or where there is no origin."""
    known = (rows.grad, rows.param) if update is None else (rows.grad, rows.param, update)
    vectors = [sample.scaled(row) for row in known]
    squares = torch.stack([torch.linalg.vector_norm(vector) for vector in vectors]).square()
    if update is None:
        sums = torch.nn.functional.pad(squares, (0, 2))
    else:
        sums = torch.cat((squares, vectors[0].dot(vectors[2])[None]))
    distances = sums.new_zeros(6) if origin is None else origin.measure(index, rows.grad, rows.param, sample)
    return torch.cat((sums, distances))


def _signals(xp: Backend, loss: Tensor | float, total: Totals, is_sgd: bool) -> Signals:
    """Makes signals from the loss and the sums over all groups."""
    grad, param, update = xp.sqrt(total.grad), xp.sqrt(total.param), xp.sqrt(total.update)
    optimizer = 0.0 * grad + (1.0 if is_sgd else -1.0)
    sums = GradientSums(total.sum_square, total.sum_lr_square, total.sum_absolute, 0.0 * grad + math.sqrt(total.ones))
    return Signals(
        loss=_as(grad, loss) if isinstance(grad, Tensor) else float(loss),
        grad_norm=grad,
        param_norm=param,
        update_norm=update,
        alignment=alignment(xp, total.product, grad, update),
        optimizer=optimizer,
        travel=xp.sqrt(total.travel),
        origin_product=total.origin_product,
        distance_scale=distance_scale(xp, optimizer > 0, sums),
        weight_structure=total.structure / xp.clip(total.structured, 1.0),
    )


def _as(like: Tensor, loss: Tensor | float) -> Tensor:
    """Brings a loss to a device, (1,); a Python number without waiting for it."""
    return loss.detach().to(like).reshape(1) if isinstance(loss, Tensor) else torch.full_like(like, loss)
