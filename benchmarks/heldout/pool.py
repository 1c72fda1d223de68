"""Runs by worker processes. Not in `__main__`, which a worker does not import."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from benchmarks.heldout.runs import Result, Run, one_thread, policy_of, train


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
        sources: name or file of each policy, by its name as `policy_of` gives it.
    """
    policies = [sources.get(policy_of(run.task, run.schedule), "") for run in todo]
    if jobs == 1:
        for run, policy in zip(todo, policies, strict=True):
            yield run, train(run, root, policy)
        return
    # Spawned, as forking after OpenMP has run can hang.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker) as pool:
        futures = {pool.submit(train, run, root, policy): run for run, policy in zip(todo, policies, strict=True)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)
