"""XGBoost's own communication between a Trainer's ranks: they grow the same trees, each from its part of the rows."""

from __future__ import annotations

import os
from typing import Any

import lightning as L
import torch


class BoostingRanks:
    """A group of XGBoost workers, one a rank, of two or more.

    Rank 0 runs the tracker that they find each other by. Sums over leaves and over cut points are XGBoost's, so the
    trees are those of all rows; margins are summed up here, so that every rank has those of all rows.

    Attributes:
        count: of ranks.
        rank: this one's number.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self.count, self.rank = trainer.world_size, trainer.global_rank
        self._tracker: Any = None
        from xgboost import collective  # late: only who boosts needs it
        from xgboost.tracker import RabitTracker

        arguments: dict[str, Any] | None = None
        if self.rank == 0:
            self._tracker = RabitTracker(self.count, host_ip=os.environ.get("MASTER_ADDR", "127.0.0.1"))
            self._tracker.start()
            arguments = self._tracker.worker_args()
        arguments = trainer.strategy.broadcast(arguments)
        collective.init(**arguments)

    def own(self, rows: int) -> slice:
        """This rank's part of so many rows."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def whole(self, part: torch.Tensor, rows: int) -> torch.Tensor:
        """All ranks' parts together, (rows,), from this rank's."""
        whole = torch.zeros(rows, dtype=part.dtype, device=part.device)
        whole[self.own(rows)] = part
        torch.distributed.all_reduce(whole)
        return whole

    def leave(self) -> None:
        """Ends the group."""
        from xgboost import collective

        collective.finalize()
        if self._tracker is not None:
            self._tracker.wait_for()
