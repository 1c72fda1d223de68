"""XGBoostRanks: XGBoost's communication between a Trainer's ranks, which grow the same trees from parts of the rows."""

from __future__ import annotations

import os
from typing import Any

import lightning as L
import torch


class XGBoostRanks:
    """Connects two or more ranks as XGBoost workers.

    Rank 0 runs the tracker by which the workers find each other. XGBoost sums over leaves and cut points, so that the
    trees are those of all rows; `whole` gathers the margins, so that every rank has those of all rows.

    Attributes:
        count: number of ranks.
        rank: number of this rank.
    """

    def __init__(self, trainer: L.Trainer) -> None:
        self.count, self.rank = trainer.world_size, trainer.global_rank
        self._tracker: Any = None
        from xgboost import collective  # late: an optional dependency
        from xgboost.tracker import RabitTracker

        arguments: dict[str, Any] | None = None
        if self.rank == 0:
            self._tracker = RabitTracker(self.count, host_ip=os.environ.get("MASTER_ADDR", "127.0.0.1"))
            self._tracker.start()
            arguments = self._tracker.worker_args()
        arguments = trainer.strategy.broadcast(arguments)
        collective.init(**arguments)

    def own(self, rows: int) -> slice:
        """Returns this rank's part of `rows` rows."""
        return slice(rows * self.rank // self.count, rows * (self.rank + 1) // self.count)

    def whole(self, part: torch.Tensor, rows: int) -> torch.Tensor:
        """Gathers the parts of all ranks, (rows,), from this rank's."""
        whole = torch.zeros(rows, dtype=part.dtype, device=part.device)
        whole[self.own(rows)] = part
        torch.distributed.all_reduce(whole)
        return whole

    def leave(self) -> None:
        """Disconnects the worker, and ends the tracker on rank 0."""
        from xgboost import collective

        collective.finalize()
        if self._tracker is not None:
            self._tracker.wait_for()
