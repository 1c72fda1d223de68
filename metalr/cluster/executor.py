"""Runs the cells of a grid as a job array."""

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
"""Seconds between two queries of the queue."""


class ClusterExecutor:
    """Runs a grid's cells as one job array, at most `Cluster.parallel` at a time.

    The cluster requeues a cell whose node is lost, and the cell resumes from its checkpoint. A cell that leaves the
    queue without a record has failed; the others continue.

    Args:
        cluster: options of the jobs.
        shape: of each cell, on one node.
        folder: for the jobs' logs.
        name: of the array.
    """

    def __init__(self, cluster: Cluster, shape: Shape, folder: Path, name: str) -> None:
        # one process a cell, which starts those of its devices
        self.parameters = slurm.parameters(cluster, shape, name) | {"ntasks_per_node": 1}
        self.folder = folder
        self._running: dict[str, CellRun] = {}
        self._asked = 0.0

    @property
    def free(self) -> int:
        """Number of cells that can be launched: unlimited, as the cluster queues them."""
        return sys.maxsize

    def launch(self, cell_runs: Sequence[CellRun]) -> None:
        """Submits cells as a job array."""
        jobs = slurm.submit([CellJob(cell_run) for cell_run in cell_runs], self.folder, self.parameters, array=True)
        self._running |= {str(job.job_id): cell_run for job, cell_run in zip(jobs, cell_runs, strict=True)}
        self._asked = time.monotonic()

    def ended(self) -> list[tuple[CellRun, bool]]:
        """Returns the cells that have left the queue, each with whether it succeeded; queries every `POLL` seconds."""
        if not self._running or time.monotonic() < self._asked + POLL:
            return []
        self._asked = time.monotonic()
        queued = slurm.alive()
        over = [] if queued is None else [name for name in self._running if name not in queued]
        cell_runs = [self._running.pop(name) for name in over]
        return [(cell_run, (cell_run.folder / RECORD).is_file()) for cell_run in cell_runs]

    def stop(self) -> None:
        """Cancels all queued and running cells."""
        slurm.cancel(list(self._running))
        self._running.clear()
