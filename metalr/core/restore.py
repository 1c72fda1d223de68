"""Copies a run's weights to the host, and restores them after a collapse: `Guards(restore=...)`."""

from __future__ import annotations

import copy

from torch import nn
from torch.optim import Optimizer

from metalr.core.decider import Decider, RunSnapshot
from metalr.core.origin import Origin
from metalr.core.weight_snapshot import WeightSnapshot

_FALL = 0.5
"""Noises of the loss by which it has to have fallen since the last copy for the next: the weights are better ones."""


class Restore:
    """Keeps one copy of a run, and goes back to it when the run has collapsed.

    The first copy is taken at the first step. Another takes its place when the loss stands at its best and has fallen
    since, so that weights that are being lost are never copied over good ones. The states of features and
    guards are restored with the weights, except for the rate and the effects of the guards.

    The copy is no part of a state: a run that is resumed begins with a new one, when its loss stands at its best.

    Args:
        every: steps between copies, at least.
        optimizer: of the run.
        module: whose buffers go back, too; None for none.

    Attributes:
        step: that the copy was taken at, before its update; None where there is no copy yet.

    Raises:
        ValueError: as `WeightSnapshot` does.
    """

    def __init__(self, every: int, optimizer: Optimizer, module: nn.Module | None) -> None:
        self.step: int | None = None
        self._every, self._due = every, 0
        self._weights = WeightSnapshot(optimizer, module)
        self._snapshot: RunSnapshot | None = None
        self._origin: Origin | None = None

    def keep(self, step: int, decider: Decider, origin: Origin | None) -> None:
        """Takes a copy, where one is due.

        Args:
            step: of the decision that was taken, whose update is to come.
            decider: that took it.
            origin: of the run, where the policy reads it.
        """
        if (step < self._due and self._weights.covers_all) or not decider.stands_at_best:
            return
        snapshot = decider.take_snapshot()
        if self._snapshot is None or not self._weights.covers_all or snapshot.fell_below(self._snapshot, _FALL):
            self._weights.take()
            self.step, self._due = step, step + self._every
            self._snapshot, self._origin = snapshot, copy.deepcopy(origin)

    def go_back(self, step: int, decider: Decider) -> Origin | None:
        """Puts the copy back, and returns the run's origin as it was.

        Args:
            step: of the decision that was taken.
            decider: that took it; it keeps its rate.

        Raises:
            RuntimeError: where there is no copy.
        """
        if self._snapshot is None:
            raise RuntimeError("there is no copy to go back to: look at step first")
        self._weights.put_back()
        decider.restore(self._snapshot)
        self._due = step + self._every
        return copy.deepcopy(self._origin)
