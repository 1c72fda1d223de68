"""The subcommand `compare`: checks a grid, runs it, and writes its report."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from metalr.compare.cell import CellRun, Script
from metalr.compare.executor import Executor, LocalExecutor
from metalr.compare.files import locked, write_text
from metalr.compare.grid import Grid, Schedule, expand, schedule_file
from metalr.compare.options import Options
from metalr.compare.runner import Outcome, check_disk, clear_changed, finished, run

Parse = Callable[[list[str]], Any]
"""Parses the arguments of `fit`, the subcommand left out, and runs nothing."""


def compare(
    grid: Grid,
    options: Options | None = None,
    parse: Parse | None = None,
    executor: Executor | None = None,
    console: Console | None = None,
) -> Path:
    """Runs a grid and writes its report.

    Args:
        grid: to be run.
        options: how.
        parse: checks the command of each workload with each schedule before the first cell starts.
        executor: where the cells run; None for this machine.
        console: to print to.

    Returns:
        The report's page.

    Raises:
        ValueError: for a command that does not parse, or a folder of another grid.
        RuntimeError: where another process is at work in the folder, or no cell is finished.
        OSError: where the disk is full.
        SystemExit: with 1 where a cell failed, after the report; with 130 after Ctrl-C.
    """
    options, console = options or Options(), console or Console()
    out = Path(options.out or Path("logs") / "compare" / grid.name)
    script = Script(options.script) if options.script else Script.running()
    tasks = [CellRun(cell, out, script, options.keep_checkpoints) for cell in grid.cells()]
    _check_only(options, grid)
    with locked(out):
        _check_folder(out, grid)
        if options.redo_changed:
            clear_changed(tasks, console)
        if options.report_only:
            outcome = finished(tasks)
        else:
            check_disk(out)
            _write_schedules(out, grid.ways)
            _check_commands([task for task in tasks if task.cell.name not in finished(tasks).records], parse)
            executor = executor or LocalExecutor(options.workers, options.threads, preload=options.preload)
            outcome = _run(tasks, executor, console, options.only)
        page = _report(grid, tasks, outcome, out, console)
    if outcome.failed:
        raise SystemExit(1)
    return page


def _run(tasks: Sequence[CellRun], executor: Executor, console: Console, only: Sequence[str]) -> Outcome:
    try:
        with _terminable():
            return run(tasks, executor, console, only)
    except KeyboardInterrupt:
        done = len(finished(tasks).records)
        console.print(f"stopped with {done} of {len(tasks)} cells finished; the same command goes on from here")
        raise SystemExit(130) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as a batch system sends it, acts as Ctrl-C does."""

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


def _report(grid: Grid, tasks: Sequence[CellRun], outcome: Outcome, out: Path, console: Console) -> Path:
    from metalr.compare.report import print_tables, write_report  # plots and tables: not needed before

    if not outcome.records:
        name, log = next(iter(outcome.failed.items()), ("", ""))
        raise RuntimeError(f"no cell of {grid.name!r} is finished, so there is nothing to report. {name}\n{log}")
    page = write_report(grid, tasks, outcome, out)
    print_tables(grid, outcome, console)
    console.print(f"report: {page}", soft_wrap=True)
    return page


def _check_only(options: Options, grid: Grid) -> None:
    names = [schedule.name for schedule in grid.ways]
    if unknown := [name for name in options.only if name not in names]:
        raise ValueError(f"only={unknown}: choose of the grid's schedules, {', '.join(names)}")


def _check_folder(out: Path, grid: Grid) -> None:
    """A folder that has something else is not written to."""
    mark = out / "grid.yaml"
    others = [path.name for path in out.iterdir() if path.name != ".lock"]
    if others and not mark.is_file():
        raise ValueError(f"out={str(out)!r} has {', '.join(sorted(others)[:3])} and no grid: give an empty folder")
    if mark.is_file() and (name := yaml.safe_load(mark.read_text())["name"]) != grid.name:
        raise ValueError(f"out={str(out)!r} is the folder of the grid {name!r}, not of {grid.name!r}: give another")
    write_text(mark, yaml.safe_dump({"name": grid.name, "cells": [cell.name for cell in grid.cells()]}))


def _write_schedules(out: Path, schedules: Sequence[Schedule]) -> None:
    for schedule in schedules:
        if not isinstance(schedule.config, str):
            write_text(schedule_file(schedule, out), yaml.safe_dump(schedule.config, sort_keys=False))


def _check_commands(tasks: Sequence[CellRun], parse: Parse | None) -> None:
    """One command of each workload with each schedule; cells differ in rate and seed alone."""
    seen: set[tuple[str, str]] = set()
    for task in tasks:
        key = (task.cell.workload.name, task.cell.schedule.name)
        if key in seen:
            continue
        seen.add(key)
        arguments = expand(task.cell.fit(task.out))
        try:
            if parse is not None:
                parse(arguments[1:])
        except (ArgumentError, ValueError, TypeError) as error:
            raise ValueError(
                f"workload {key[0]!r} with schedule {key[1]!r}: its command does not parse: {error}\n"
                + " ".join(arguments)
            ) from error
