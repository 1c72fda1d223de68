"""Hooks of other callbacks, replaced while a fit lasts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class ReplacedHooks:
    """Replaces hooks on the instances of callbacks, whatever their order in the Trainer, until `release`."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str]] = []

    def replace(self, callback: Any, name: str, hook: Callable[..., Any]) -> None:
        """Has the Trainer call `hook` in place of the callback's own."""
        vars(callback)[name] = hook
        self._replaced.append((callback, name))

    def release(self) -> None:
        """Gives the callbacks their own hooks back."""
        while self._replaced:
            callback, name = self._replaced.pop()
            vars(callback).pop(name, None)
