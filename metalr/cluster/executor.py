"""The cells of a grid as a job array."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from metalr.cluster import slurm
from metalr.cluster.job import CellJob
from metalr.cluster.options import Cluster
from metalr.cluster.shape import Shape
from metalr.compare.cell import CellRun
from metalr.compare.record import RECORD

POLL = 3.0
"""Seconds between two questions to the cluster."""


class ClusterExecutor:
    """Runs a grid's cells as one job array, as many at once as `Cluster.parallel` says.

    A cell whose node is lost is queued again by the cluster, and goes on from its checkpoint. One that is gone from
    the queue without a record has failed, and the others go on.

    Args:
        cluster: where.
        shape: of each cell: one node.
        folder: of the jobs' own logs.
        name: of the array.
    """

    def __init__(self, cluster: Cluster, shape: Shape, folder: Path, name: str) -> None:
        # One process, which starts those of its devices.
        self.parameters = slurm.parameters(cluster, shape, name) | {"ntasks_per_node": 1}
        self.folder = folder
        self._running: dict[str, CellRun] = {}
        self._asked = 0.0

    @property
    def free(self) -> int:
        """As many as there are: the cluster queues them."""
        return sys.maxsize

    def launch(self, cell_runs: Sequence[CellRun]) -> None:
        """Submits them as an array."""
        jobs = slurm.submit([CellJob(cell_run) for cell_run in cell_runs], self.folder, self.parameters, array=True)
        self._running |= {str(job.job_id): cell_run for job, cell_run in zip(jobs, cell_runs, strict=True)}
        self._asked = time.monotonic()

    def ended(self) -> list[tuple[CellRun, bool]]:
        """Those that are no longer in the queue; asks every few seconds."""
        if not self._running or time.monotonic() < self._asked + POLL:
            return []
        self._asked = time.monotonic()
        queued = slurm.alive()
        over = [] if queued is None else [name for name in self._running if name not in queued]
        cell_runs = [self._running.pop(name) for name in over]
        return [(cell_run, (cell_run.folder / RECORD).is_file()) for cell_run in cell_runs]

    def stop(self) -> None:
        """Cancels what is queued or runs."""
        slurm.cancel(list(self._running))
        self._running.clear()
