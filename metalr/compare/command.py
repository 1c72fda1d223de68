"""The subcommand `compare`: checks a grid, runs it, and writes its report."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from metalr.compare.executor import Executor, LocalExecutor
from metalr.compare.files import locked, write_text
from metalr.compare.fit import FitRun, Script
from metalr.compare.grid import Grid, Schedule, schedule_file
from metalr.compare.options import Options
from metalr.compare.runner import Outcome, check_disk, clear_changed, finished, run
from metalr.compare.shell import command_line, expand

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
    cell_runs = [FitRun(cell, out, script, options.keep_checkpoints) for cell in grid.cells()]
    _check_only(options, grid)
    with locked(out):
        _check_folder(out, grid)
        if options.redo_changed:
            clear_changed(cell_runs, console)
        outcome = finished(cell_runs)
        if not options.report_only:
            check_disk(out)
            _write_schedules(out, grid.resolved_schedules)
            _check_commands([cell_run for cell_run in cell_runs if cell_run.name not in outcome.records], parse)
            executor = executor or LocalExecutor(options.workers, options.threads, preload=options.preload)
            run(cell_runs, outcome, executor, console, options.only)
        page = _report(grid, cell_runs, outcome, out, console)
    if outcome.failed:
        raise SystemExit(1)
    return page


def _report(grid: Grid, cell_runs: Sequence[FitRun], outcome: Outcome, out: Path, console: Console) -> Path:
    from metalr.compare.report import print_tables, write_report  # late: plots and tables

    if not outcome.records:
        name, log = next(iter(outcome.failed.items()), ("", ""))
        raise RuntimeError(f"no cell of {grid.name!r} is finished, so there is nothing to report. {name}\n{log}")
    page = write_report(grid, cell_runs, outcome, out)
    print_tables(grid, outcome, console)
    console.print(Text(f"report: {page}"), soft_wrap=True)
    return page


def _check_only(options: Options, grid: Grid) -> None:
    names = grid.schedule_names
    if unknown := [name for name in options.only if name not in names]:
        raise ValueError(f"only={unknown}: choose of the grid's schedules, {', '.join(names)}")


def _check_folder(out: Path, grid: Grid) -> None:
    """Refuses a folder that has something else."""
    described = out / "grid.yaml"
    others = [path.name for path in out.iterdir() if path.name != ".lock"]
    if others and not described.is_file():
        raise ValueError(f"out={str(out)!r} has {', '.join(sorted(others)[:3])} and no grid: give an empty folder")
    if described.is_file() and (name := yaml.safe_load(described.read_text())["name"]) != grid.name:
        raise ValueError(f"out={str(out)!r} is the folder of the grid {name!r}, not of {grid.name!r}: give another")
    write_text(described, yaml.safe_dump({"name": grid.name, "cells": [cell.name for cell in grid.cells()]}))


def _write_schedules(out: Path, schedules: Sequence[Schedule]) -> None:
    for schedule in schedules:
        if not isinstance(schedule.config, str):
            write_text(schedule_file(schedule, out), yaml.safe_dump(schedule.config, sort_keys=False))


def _check_commands(cell_runs: Sequence[FitRun], parse: Parse | None) -> None:
    """Parses one command of each workload with each schedule; cells differ in rate and seed alone."""
    distinct: dict[tuple[str, str], FitRun] = {}
    for cell_run in cell_runs:
        distinct.setdefault((cell_run.workload, cell_run.schedule), cell_run)
    for (workload, schedule), cell_run in distinct.items():
        arguments = expand(cell_run.cell.fit(cell_run.out))
        try:
            if parse is not None:
                parse(arguments[1:])
        except (ArgumentError, ValueError, TypeError) as error:
            raise ValueError(
                f"workload {workload!r} with schedule {schedule!r}: its command does not parse: {error}\n"
                + command_line(arguments)
            ) from error
