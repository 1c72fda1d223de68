"""Runs short cells in worker processes that persist, with their imports and data loaded."""

from __future__ import annotations

import gc
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout

from metalr.compare.cell import LOG, CellRun
from metalr.compare.executor import end_with_parent, fork_context


class PoolExecutor:
    """Runs cells in worker processes of one thread each, which take one cell after another.

    A cell that raises fails by itself; one that ends its process, by a signal say, takes those beside it along, and
    the next ones have new workers.

    Args:
        workers: processes.
        prepare: called in each worker before its first cell; a function of a module.

    Raises:
        ValueError: for no worker.
    """

    def __init__(self, workers: int, prepare: Callable[[], None] | None = None) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers}: give 1 or more")
        self.workers = workers
        self.prepare = prepare
        self._pool: ProcessPoolExecutor | None = None
        self._running: dict[Future[None], CellRun] = {}

    @property
    def free(self) -> int:
        """Number of workers that have nothing to do."""
        return self.workers - len(self._running)

    def launch(self, cell_runs: Sequence[CellRun]) -> None:
        """Hands the cells to the workers, which are started with the first."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.workers, fork_context(threads=1), _start, (self.prepare,))
        self._running |= {self._pool.submit(_work, cell_run): cell_run for cell_run in cell_runs}

    def ended(self) -> list[tuple[CellRun, bool]]:
        """Lists the cells that have ended since the last call, each with whether it ended well."""
        done = [future for future in self._running if future.done()]
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            self._pool = None
        return [(self._running.pop(future), future.exception() is None) for future in done]

    def stop(self) -> None:
        """Waits for the cells that run, seconds each, and ends the workers."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._running.clear()


def _start(prepare: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    if prepare is not None:
        prepare()


def _work(cell_run: CellRun) -> None:
    cell_run.folder.mkdir(parents=True, exist_ok=True)
    with (cell_run.folder / LOG).open("a", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            cell_run.run()
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            gc.collect()  # an optimizer and its scheduler hold each other, and with them the cell's tensors
