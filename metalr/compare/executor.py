"""Runs each cell in a process of its own on this machine; `pool` and a cluster have the same three methods."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Protocol

from metalr.compare.cell import LOG, CellRun

GRACE = 10.0
"""Seconds that cells have to end in after Ctrl-C; what they lose is since their last epoch's checkpoint."""


class Executor(Protocol):
    """Runs cells side by side."""

    @property
    def free(self) -> int:
        """Number of cells that it takes now."""

    def launch(self, cell_runs: Sequence[CellRun]) -> None:
        """Starts cells, `free` at most."""

    def ended(self) -> list[tuple[CellRun, bool]]:
        """Lists the cells that have ended since the last call, each with whether it ended well."""

    def stop(self) -> None:
        """Ends what runs, so that it can go on later."""


class LocalExecutor:
    """Gives each cell a process of this machine, with its share of cores and devices.

    The processes are forked from one that has imported what the train script imports, so that starting one takes
    less than a second. Each has its own process group: Ctrl-C in a terminal reaches this process alone.

    Args:
        workers: processes at a time; None for one a share of devices, or where there are none, one a core.
        threads: of each; None for an equal share of the cores.
        devices: names as CUDA_VISIBLE_DEVICES has them; shared out in equal parts.
        preload: modules to be imported before forking, beside those that the train script imports.

    Raises:
        ValueError: for more threads than cores, or more workers than devices.
    """

    def __init__(
        self,
        workers: int | None = None,
        threads: int | None = None,
        devices: Sequence[str] | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        cores = len(os.sched_getaffinity(0))
        devices = visible_devices() if devices is None else list(devices)
        workers = min(len(devices) or cores, cores) if workers is None else workers
        if workers < 1 or (threads is not None and threads < 1):
            raise ValueError(f"workers={workers}, threads={threads}: give 1 or more")
        threads = max(1, cores // workers) if threads is None else threads
        if workers * threads > cores:
            raise ValueError(
                f"workers={workers} with threads={threads} each is more than the {cores} cores here: give fewer"
            )
        if devices and workers > len(devices):
            raise ValueError(f"workers={workers} is more than the {len(devices)} devices here: give fewer")
        share = len(devices) // workers if devices else 0
        self.workers = workers
        self.threads = threads
        self.preload = list(preload)
        self._slots = [",".join(devices[i * share : (i + 1) * share]) for i in range(workers)]
        self._running: dict[BaseProcess, tuple[CellRun, str]] = {}

    @property
    def free(self) -> int:
        """Number of workers that have nothing to do."""
        return len(self._slots)

    def launch(self, cell_runs: Sequence[CellRun]) -> None:
        """Forks a process for each."""
        context = fork_context(self.threads, self.preload)
        for cell_run in cell_runs:
            slot = self._slots.pop()
            cell_run.folder.mkdir(parents=True, exist_ok=True)
            process = context.Process(target=_work, args=(cell_run, self.threads, slot), name=cell_run.name)
            process.start()
            self._running[process] = (cell_run, slot)

    def ended(self) -> list[tuple[CellRun, bool]]:
        """Reaps the processes that have ended."""
        done = [process for process in self._running if process.exitcode is not None]
        return [(self._reap(process), process.exitcode == 0) for process in done]

    def stop(self) -> None:
        """Asks the processes to end, and kills those that do not."""
        for sign, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            for process in self._running:
                _signal_group(process, sign)
            until = time.monotonic() + patience
            for process in self._running:
                process.join(max(0.0, until - time.monotonic()))
        for process in list(self._running):
            self._reap(process)

    def _reap(self, process: BaseProcess) -> CellRun:
        _signal_group(process, signal.SIGKILL)  # its loader workers, if it left any
        process.join()
        cell_run, slot = self._running.pop(process)
        self._slots.append(slot)
        return cell_run


def fork_context(threads: int, preload: Sequence[str] = ()) -> ForkServerContext:
    """Starts the process that workers are forked from, unless it runs, and returns the context that forks them.

    It has imported what the train script imports, so that a worker starts in less than a second and shares its memory.

    Args:
        threads: of OpenMP, in each worker.
        preload: modules to be imported beside those that the train script imports.
    """
    context = multiprocessing.get_context("forkserver")
    with _environment(OMP_NUM_THREADS=str(threads), PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        context.set_forkserver_preload([*imported_by(sys.modules["__main__"]), *preload])
        with _ignored(signal.SIGINT):
            forkserver.ensure_running()
    return context


def visible_devices() -> list[str]:
    """Lists the CUDA devices of this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named and count else [str(i) for i in range(count)]


def imported_by(main: ModuleType) -> list[str]:
    """Lists the modules that a script's own names come from: what is worth importing before forking."""
    values = list(vars(main).values())
    names = [each.__name__ if isinstance(each, ModuleType) else getattr(each, "__module__", None) for each in values]
    extra = [
        "metalr.compare.callback",
        "tensorboard.backend.event_processing.event_accumulator",
        "lightning.pytorch.cli",
        "torchmetrics",
    ]
    found = [name for name in names if isinstance(name, str) and name not in ("__main__", "builtins")]
    return list(dict.fromkeys([*found, *extra]))


def _work(cell_run: CellRun, threads: int, devices: str) -> None:
    """Runs a cell in a worker process."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    log = (cell_run.folder / LOG).open("a", buffering=1)  # stays open: a traceback comes after this function
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    import torch

    torch.set_num_threads(threads)
    cell_run.run()


def end_with_parent() -> None:
    """Ends this worker when its parent is killed: nobody would wait for it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _signal_group(process: BaseProcess, sign: signal.Signals) -> None:
    try:
        if process.pid is not None:
            os.killpg(process.pid, sign)
    except (ProcessLookupError, PermissionError):
        if process.is_alive():  # so young that it has no group of its own yet
            process.kill()


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        _restore(before.items())


def _restore(before: Iterable[tuple[str, str | None]]) -> None:
    for name, value in before:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _ignored(sign: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(sign, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(sign, before)
