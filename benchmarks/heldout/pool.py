"""Runs by worker processes. Not in `__main__`, which a worker does not import."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from benchmarks.heldout.runs import Result, Run, one_thread, train


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    one_thread()


def train_all(
    todo: Sequence[Run], jobs: int, root: str | None, sources: Mapping[str, str]
) -> Iterator[tuple[Run, Result]]:
    """Gives each run's result as it ends.

    Args:
        todo: what to do, begun in this order.
        jobs: worker processes of one thread each; with one, the runs are done in this process.
        root: folder of the real data; None for the hub.
        sources: name or file of each learned schedule's policy.
    """
    if jobs == 1:
        for run in todo:
            yield run, train(run, root, sources.get(run.schedule, ""))
        return
    # Spawned, as forking after OpenMP has run can hang.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker) as pool:
        futures = {pool.submit(train, run, root, sources.get(run.schedule, "")): run for run in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)
