"""The steps of an optimizer, each counted once: a closure that is called again belongs to the same step."""

from __future__ import annotations

import weakref
from typing import Any

from torch.optim import Optimizer


class StepCount:
    """Counts the steps that an optimizer has finished, through its step hooks, until `release`.

    A step within a step (a base optimizer's, or `super().step()`) is part of the outer one.

    Args:
        optimizer: a torch optimizer; one that was never initialised as such has no hooks, and counts no steps.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.finished = 0
        self._depth = 0
        counted, self._handles = weakref.ref(self), []
        if hasattr(optimizer, "_optimizer_step_pre_hooks"):

            def begin(*_: Any) -> None:
                if (count := counted()) is not None:
                    count._depth += 1

            def end(*_: Any) -> None:
                if (count := counted()) is not None:
                    count._depth -= 1
                    count.finished += count._depth == 0

            self._handles = [optimizer.register_step_pre_hook(begin), optimizer.register_step_post_hook(end)]

    def start_batch(self) -> None:
        """Forgets a step that an exception ended, which the module may have caught."""
        self._depth = 0

    def release(self) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
