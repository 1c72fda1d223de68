"""Runs the cells of a grid that are not finished yet, and shows how far they are."""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from metalr.compare.callback import PROGRESS
from metalr.compare.cell import LOG, CellRun, tail
from metalr.compare.executor import Executor
from metalr.compare.files import write_text
from metalr.compare.record import Record, fingerprint

POLL = 0.2
"""Seconds between two looks at the workers."""
FREE = 2**30
"""Bytes of disk that must be free."""
FINGERPRINT = "fingerprint.txt"
"""In a cell's folder from its start: what it is a run of."""


@dataclass
class Outcome:
    """What has become of a grid's cells.

    Attributes:
        records: of the finished cells, by the cell's name.
        failed: the end of the log of each cell that failed, by its name.
    """

    records: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def finished(tasks: Sequence[CellRun]) -> Outcome:
    """The cells that are finished already.

    Raises:
        ValueError: where a folder has a run of another grid, or a damaged record.
    """
    outcome = Outcome()
    for task in tasks:
        record = Record.load(task.folder)
        if _changed(task, record):
            raise ValueError(
                f"{task.folder} is a run of another grid (another command, or a config or policy that has changed "
                "since): give another --out, or --redo_changed true to delete it and run it again"
            )
        if record:
            outcome.records[task.cell.name] = record
    return outcome


def clear_changed(tasks: Sequence[CellRun], console: Console) -> None:
    """Deletes the runs that `finished` refuses: their command, config or policy has changed."""
    for task in tasks:
        if _changed(task, Record.load(task.folder)):
            console.print(f"{escape(task.cell.name)} has changed since it was run: deleted, to be run again")
            shutil.rmtree(task.folder)


def _changed(task: CellRun, record: Record | None) -> bool:
    mark = task.folder / FINGERPRINT
    known = record.fingerprint if record else mark.read_text() if mark.is_file() else None
    return known is not None and known != fingerprint(task.cell)


def check_disk(folder: Path) -> None:
    """Tells that the disk is full before a run finds it out.

    Raises:
        OSError: where less than a gigabyte is free.
    """
    free = shutil.disk_usage(folder).free
    if free < FREE:
        raise OSError(f"{folder}: {free / 2**20:.0f} MB are free: make room for logs and checkpoints, or give --out")


def run(tasks: Sequence[CellRun], executor: Executor, console: Console, only: Collection[str] = ()) -> Outcome:
    """Runs what is not finished, of all schedules or only of some.

    A cell that fails does not stop the others. Whatever stops this function, Ctrl-C too, ends the workers; the cells
    go on from their last checkpoint when the same tasks are run again.

    Raises:
        ValueError: as `finished`.
        OSError: where the disk is full.
    """
    outcome = finished(tasks)
    wanted = [task for task in tasks if not only or task.cell.schedule.name in only]
    pending = deque(task for task in wanted if task.cell.name not in outcome.records)
    console.print(f"{len(tasks)} cells, {len(outcome.records)} of them finished before")
    with _Display(console, len(tasks), len(outcome.records)) as display:
        running: list[CellRun] = []
        try:
            while pending or running:
                chosen = [pending.popleft() for _ in range(min(executor.free, len(pending)))]
                if chosen:
                    check_disk(chosen[0].out)
                    for task in chosen:
                        write_text(task.folder / FINGERPRINT, fingerprint(task.cell))
                    executor.launch(chosen)
                    running += chosen
                for task, well in executor.ended():
                    running.remove(task)
                    _settle(task, well, outcome)
                    display.end(task, outcome)
                display.update(running)
                time.sleep(POLL)
        finally:
            executor.stop()
    # In the grid's order, not in that of their ends, which another run would not have: so two reports are alike.
    records = {task.cell.name: outcome.records.get(task.cell.name) for task in tasks}
    outcome.records = {name: record for name, record in records.items() if record is not None}
    return outcome


def _settle(task: CellRun, well: bool, outcome: Outcome) -> None:
    record = Record.load(task.folder) if well else None
    if record is None:
        outcome.failed[task.cell.name] = tail(task.folder) or "it ended without a word"
    else:
        outcome.records[task.cell.name] = record


class _Display:
    """A bar for the grid, and one for each running cell; on no terminal, a line for each cell that ends."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True)
        self.all = self.progress.add_task("[bold]cells", total=total, completed=done)
        self.bars: dict[str, TaskID] = {}

    def __enter__(self) -> _Display:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def update(self, running: Sequence[CellRun]) -> None:
        for task in running:
            if task.cell.name not in self.bars:
                self.bars[task.cell.name] = self.progress.add_task(escape(task.cell.name), total=None)
            note = _progress(task)
            self.progress.update(self.bars[task.cell.name], completed=note.get("step", 0), total=note.get("total"))

    def end(self, task: CellRun, outcome: Outcome) -> None:
        self.progress.advance(self.all)
        if task.cell.name in self.bars:
            self.progress.remove_task(self.bars.pop(task.cell.name))
        name, record = escape(task.cell.name), outcome.records.get(task.cell.name)
        if record is None:
            self.progress.console.print(f"[red]failed[/] {name}: see {escape(str(task.folder / LOG))}")
        else:
            metric = task.cell.workload.metric
            self.progress.console.print(f"{name}: {metric} {record.final[metric]:.4g}, {record.seconds:.1f} s")


def _progress(task: CellRun) -> dict[str, int | None]:
    try:
        note: dict[str, int | None] = json.loads((task.folder / PROGRESS).read_text())
        return note
    except OSError:
        return {}
