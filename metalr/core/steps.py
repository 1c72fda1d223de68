"""An optimizer's own steps, watched through its step hooks.

What a decision needs to know of them: where a step begins and ends, since only what happens between the two is an
update; and whether a closure is called again in the same step, as sharpness-aware optimizers and line searches do.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from metalr.core.direction import Direction
from metalr.core.groups import GroupRates
from metalr.core.sample import GroupSample, ParameterSample, trained

Arguments = tuple[tuple[object, ...], dict[str, object]]
"""Of a step, by position and by name."""

Loss = Tensor | float | None
"""What a closure gives."""

Result = TypeVar("Result")

_WATCHES: weakref.WeakKeyDictionary[Optimizer, weakref.ref[StepWatch]] = weakref.WeakKeyDictionary()
"""The one watch of each optimizer: a new one takes the place of the old."""


class StepWatch:
    """Watches the steps of an optimizer, and of those that it steps inside (`base_optimizer` and the like).

    Hooks hold it weakly and are removed with it, and those of an earlier watch on the same optimizer at once.

    Args:
        optimizer: whose steps are watched; one that a wrapper takes outside counts, those within it do not.
        direction: is shown the parameters before and after each step, where it is measured.
        sample: of the optimizer's parameters; to be replaced when they change.
        rates: of its groups: what the optimizer itself writes into them in a step counts for nothing.

    Attributes:
        sample: as given.
        decide: called once a step with its gradients there: before the update with (False, None), or after the first
            call of the closure with True and the loss that it gave. None where decisions are taken by the loop.
        finished: steps that are over.
        released: whether another watch has taken its place, or `release` was called.
    """

    def __init__(self, optimizer: Optimizer, direction: Direction, sample: ParameterSample, rates: GroupRates) -> None:
        self.sample = sample
        self.decide: weakref.WeakMethod[Callable[[bool, Loss], None]] | None = None
        self.finished = 0
        self.released = False
        self._direction, self._rates = direction, rates
        self._closure: _Closure | None = None
        self._decided = False
        self._depth = 0
        self._handles: list[RemovableHandle] = []
        # Hooks are set by Optimizer.__init__, which some wrappers leave out.
        watched = [each for each in with_inner(optimizer) if hasattr(each, "_optimizer_step_pre_hooks")]
        for each in watched:
            earlier = _WATCHES.get(each, lambda: None)()
            if earlier is not None:
                earlier.release()
        for each in watched:
            _WATCHES[each] = weakref.ref(self)
            self._handles.append(each.register_step_pre_hook(_weak_hook(self, StepWatch._begin)))
            self._handles.append(each.register_step_post_hook(_weak_hook(self, StepWatch._end)))
        weakref.finalize(self, _remove, self._handles).atexit = False

    def release(self) -> None:
        """Removes the hooks, for good."""
        _remove(self._handles)
        self.released = True

    def takes_decision(self) -> bool:
        """Notes that a decision is about to be taken; False where this step has had its one.

        Raises:
            RuntimeError: for a watch that was released.
        """
        self.outside()
        if self._closure is None:
            self._decided = True
            return True
        first, self._closure.decided = not self._closure.decided, True
        return first

    def outside(self) -> None:
        """Notes that no step is under way, even if the last one ended by an exception, unless a closure is.

        Raises:
            RuntimeError: for a watch that was released.
        """
        if self.released:
            raise RuntimeError(
                "this MetaLR was released, or replaced by a newer one on the same optimizer: one sets its rates at a "
                "time, so call step on the newest alone"
            )
        if self._closure is None:
            self._depth = 0

    def _begin(self, args: tuple[object, ...], kwargs: dict[str, object]) -> Arguments | None:
        """Sees a step begin: the outermost counts, and its closure decides once."""
        name = "closure" if "closure" in kwargs else 1
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if callable(closure) and not isinstance(closure, _Closure):
            self._depth = 0  # no step inside another has a closure of its own
        if self._depth == 0:
            self._refuse_backward()
            if not callable(closure):
                self._ask(False, None)
        self._depth += 1
        if self._depth > 1:
            return None
        if self._direction.is_measured:
            self._show(self._direction.before_step)
        decided, self._decided = self._decided, False
        if not callable(closure):
            return None
        watched = _Closure(self, closure, decided)
        if name == "closure":
            return args, kwargs | {"closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _end(self, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Sees a step end."""
        self._depth -= self._depth > 0
        if self._depth:
            return
        self.finished += 1
        self._rates.note()
        if self._direction.is_measured:
            self._show(self._direction.after_step)

    def _ask(self, in_closure: bool, loss: Loss) -> None:
        decide = None if self.decide is None else self.decide()
        if decide is not None:
            decide(in_closure, loss)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _show(self, direction: Callable[[Sequence[GroupSample]], None]) -> None:
        direction(self.sample.groups)

    def _refuse_backward(self) -> None:
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "optimizer.step() was called inside backward(), by a hook on its parameters' gradients: MetaLR decides "
                "between the two; call optimizer.step() after loss.backward()"
            )


class _Closure:
    """Wraps the closure of one step: the first call decides, and later ones do not."""

    def __init__(self, watch: StepWatch, closure: Callable[..., Loss], decided: bool) -> None:
        self.decided = decided
        self._watch, self._closure = watch, closure

    def __call__(self, *args: object, **kwargs: object) -> Loss:
        watch = self._watch
        around, watch._closure = watch._closure, self
        try:
            loss = self._closure(*args, **kwargs)
            if not self.decided:
                watch._ask(True, loss)
            return loss
        finally:
            watch._closure = around


def with_inner(optimizer: Optimizer) -> Iterator[Optimizer]:
    """Yields the optimizer and those that it holds for the same parameters."""
    params = {id(p) for group in optimizer.param_groups for p in trained(group)}
    waiting, seen = [optimizer], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen or not any(id(p) in params for group in each.param_groups for p in trained(group)):
            continue
        seen.add(id(each))
        waiting += [inner for inner in vars(each).values() if isinstance(inner, Optimizer)]
        yield each


def _weak_hook(watch: StepWatch, method: Callable[..., Result]) -> Callable[..., Result | None]:
    """Makes a step hook that calls a method of the watch for as long as the watch exists."""
    held = weakref.ref(watch)

    def hook(_: Optimizer, args: tuple[object, ...], kwargs: dict[str, object]) -> Result | None:
        live = held()
        return None if live is None else method(live, args, kwargs)

    return hook


def _remove(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()
