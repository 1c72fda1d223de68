"""Runs the cells of a grid that are not finished yet, and shows their progress."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from metalr.compare.callback import PROGRESS
from metalr.compare.cell import LOG, CellRun, tail
from metalr.compare.executor import Executor
from metalr.compare.files import write_text
from metalr.compare.record import RECORD, Record

POLL = 0.05
"""Seconds between two looks at the workers."""
FREE = 2**30
"""Bytes of disk that must be free."""
FINGERPRINT = "fingerprint.txt"
"""In a cell's folder from its start: what it is a run of."""


@dataclass
class Outcome:
    """Holds what has become of a grid's cells.

    Attributes:
        records: of the finished cells, by the cell's name.
        failed: the end of the log of each cell that failed, by its name.
    """

    records: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def finished(cell_runs: Sequence[CellRun]) -> Outcome:
    """Reads the records of the cells that are finished already, each once.

    Raises:
        ValueError: where a folder has a run of another grid, or a damaged record.
    """
    outcome = Outcome()
    for cell_run in cell_runs:
        record = Record.load(cell_run.folder)
        if _changed(cell_run, record):
            raise ValueError(
                f"{cell_run.folder} is a run of another grid (another command, or a config or policy that has changed "
                "since): give another --out, or --redo_changed true to delete it and run it again"
            )
        if record:
            outcome.records[cell_run.name] = record
    return outcome


def clear_changed(cell_runs: Sequence[CellRun], console: Console) -> None:
    """Deletes the runs that `finished` refuses: their command, config or policy has changed."""
    for cell_run in cell_runs:
        if _changed(cell_run, Record.load(cell_run.folder)):
            console.print(f"{escape(cell_run.name)} has changed since it was run: deleted, to be run again")
            shutil.rmtree(cell_run.folder)


def _changed(cell_run: CellRun, record: Record | None) -> bool:
    stored = cell_run.folder / FINGERPRINT
    known = record.fingerprint if record else stored.read_text() if stored.is_file() else None
    return known is not None and known != cell_run.fingerprint()


def check_disk(folder: Path) -> None:
    """Refuses a full disk before a run finds it.

    Raises:
        OSError: where less than a gigabyte is free.
    """
    free = shutil.disk_usage(folder).free
    if free < FREE:
        raise OSError(f"{folder}: {free / 2**20:.0f} MB are free: make room for logs and checkpoints, or give --out")


def run(
    cell_runs: Sequence[CellRun],
    outcome: Outcome,
    executor: Executor,
    console: Console,
    only: Collection[str] = (),
) -> Outcome:
    """Runs what is not finished, of all schedules or only of some.

    A cell that fails does not stop the others. Ctrl-C, and SIGTERM as a batch system sends it, end the workers; the
    cells go on from their last checkpoint when the same grid is run again.

    Args:
        cell_runs: the cells of the grid.
        outcome: what `finished` found of them; it is brought up to date.
        executor: where the cells run.
        console: to print to.
        only: schedules whose cells are run; none given: all.

    Raises:
        OSError: where the disk is full.
        SystemExit: with 130 after Ctrl-C or SIGTERM.
    """
    try:
        with _terminable():
            _run(cell_runs, outcome, executor, console, only)
    except KeyboardInterrupt:
        done = sum((cell_run.folder / RECORD).is_file() for cell_run in cell_runs)  # some since the last look
        console.print(f"stopped with {done} of {len(cell_runs)} cells finished; the same command goes on from here")
        raise SystemExit(130) from None
    # In the grid's order, not in that of their ends, which another run would not have: so two reports are alike.
    records = {cell_run.name: outcome.records.get(cell_run.name) for cell_run in cell_runs}
    outcome.records = {name: record for name, record in records.items() if record is not None}
    return outcome


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM act as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(
    cell_runs: Sequence[CellRun], outcome: Outcome, executor: Executor, console: Console, only: Collection[str]
) -> None:
    wanted = [cell_run for cell_run in cell_runs if not only or cell_run.schedule in only]
    pending = deque(cell_run for cell_run in wanted if cell_run.name not in outcome.records)
    console.print(f"{len(cell_runs)} cells, {len(outcome.records)} of them finished before")
    with _Display(console, len(cell_runs), len(outcome.records)) as display:
        running: list[CellRun] = []
        try:
            while pending or running:
                chosen = [pending.popleft() for _ in range(min(executor.free, len(pending)))]
                if chosen:
                    check_disk(chosen[0].out)
                    for cell_run in chosen:
                        write_text(cell_run.folder / FINGERPRINT, cell_run.fingerprint())
                    executor.launch(chosen)
                    running += chosen
                for cell_run, well in executor.ended():
                    running.remove(cell_run)
                    _settle(cell_run, well, outcome)
                    display.end(cell_run, outcome)
                display.update(running)
                time.sleep(POLL)
        finally:
            executor.stop()


def _settle(cell_run: CellRun, well: bool, outcome: Outcome) -> None:
    record = Record.load(cell_run.folder) if well else None
    if record is None:
        outcome.failed[cell_run.name] = tail(cell_run.folder) or "its log is empty"
    else:
        outcome.records[cell_run.name] = record


class _Display:
    """Shows a bar for the grid, and one for each running cell; on no terminal, a line for each cell that ends."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
        self.all = self.progress.add_task("[bold]cells", total=total, completed=done)
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> _Display:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def update(self, running: Sequence[CellRun]) -> None:
        for cell_run in running:
            if cell_run.name not in self.bars:
                self.bars[cell_run.name] = self.progress.add_task(escape(cell_run.name), total=None)
            note = _progress(cell_run)
            self.progress.update(self.bars[cell_run.name], completed=note.get("step", 0), total=note.get("total"))

    def end(self, cell_run: CellRun, outcome: Outcome) -> None:
        self.progress.advance(self.all)
        if cell_run.name in self.bars:
            self.progress.remove_task(self.bars.pop(cell_run.name))
        name, record = escape(cell_run.name), outcome.records.get(cell_run.name)
        if record is None:
            self.progress.console.print(f"[red]failed[/] {name}: see {escape(str(cell_run.folder / LOG))}")
        else:
            value = record.final[cell_run.metric]
            self.progress.console.print(f"{name}: {cell_run.metric} {value:.4g}, {record.seconds:.1f} s")


def _progress(cell_run: CellRun) -> dict[str, int | None]:
    try:
        note: dict[str, int | None] = json.loads((cell_run.folder / PROGRESS).read_text())
        return note
    except OSError:
        return {}
