"""Attaches things to objects that outlive a training: at most one to each, removed before the next."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

_ATTACHED: WeakKeyDictionary[object, Callable[[], None]] = WeakKeyDictionary()


def attach(target: object, detach: Callable[[], None]) -> None:
    """Notes what takes an attachment off its target, after taking off the one before, whoever attached it.

    A training that ends with an exception calls no hook at its end, so the next one cleans up.

    Args:
        target: a model or a scheduler.
        detach: undoes the attachment; it must not hold a reference to the target.
    """
    release(target)
    _ATTACHED[target] = detach


def release(target: object) -> None:
    """Takes off what is attached to the target, if anything is."""
    detach = _ATTACHED.pop(target, None)
    if detach is not None:
        detach()
