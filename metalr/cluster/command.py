"""The subcommand `submit`: submits a command as one job, or the cells of a grid as a job array."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from metalr.cluster import slurm
from metalr.cluster.executor import ClusterExecutor
from metalr.cluster.job import ScriptJob
from metalr.cluster.options import Submission
from metalr.cluster.shape import Shape
from metalr.compare.command import Parse, compare
from metalr.compare.fit import Script
from metalr.compare.grid import Grid
from metalr.compare.options import Options
from metalr.compare.shell import expand, fit_options

POLL = 1.0
"""Seconds between two reads of a log."""

NOTE = "submitted.yaml"
"""File in a job's folder: its command, and the options that it was submitted with."""


def submit(options: Submission, command: Sequence[str], trainer: Any, console: Console | None = None) -> str | None:
    """Submits a command of this train script as one job.

    The Trainer's `default_root_dir` becomes the job's own folder unless the command sets it: Lightning looks there for
    the checkpoint of a requeued job, and two jobs must not find each other's.

    Args:
        options: of the submission.
        command: a subcommand of the script and its arguments, already checked by the parser.
        trainer: the parsed Trainer arguments of the command.
        console: to print to; None for the terminal.

    Returns:
        The job's number; None for a dry run.

    Raises:
        ValueError: for devices that are not a number, or a folder that has a job already.
        RuntimeError: where `sbatch` is missing or refuses the job.
        SystemExit: with status 1, if a followed job does not complete.
    """
    console = console or Console()
    folder = Path(options.folder) / options.name
    arguments = list(command)
    if not any(part.startswith("--trainer.default_root_dir") for part in arguments):
        arguments.append(f"--trainer.default_root_dir={folder.resolve()}")
    script = Script.running()
    given = slurm.parameters(options.cluster, Shape.of(trainer), options.name)
    note = {"command": shlex.join([*script.command, *arguments]), "slurm": given}
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} has a job already: give another --name, or delete it")
    if options.dry_run:
        _show(note, console)
        return None
    (job,) = slurm.submit([ScriptJob(script, tuple(arguments))], folder / "jobs", given, array=False)
    (folder / NOTE).write_text(yaml.safe_dump(note | {"job": job.job_id}, sort_keys=False))
    console.print(f"job {job.job_id}, log {job.paths.stdout}", soft_wrap=True, highlight=False)
    if options.follow:
        _follow(str(job.job_id), Path(job.paths.stdout), Path(job.paths.stderr), console)
    return str(job.job_id)


def _show(note: dict[str, Any], console: Console) -> None:
    """Prints what would be submitted, as YAML."""
    console.print(yaml.safe_dump(note, sort_keys=False, width=1000).strip(), highlight=False, soft_wrap=True)


def _follow(job_id: str, out: Path, err: Path, console: Console) -> None:
    """Prints both logs as they grow, until the job ends."""
    read = {out: 0, err: 0}
    over = False
    while True:
        for path in read:
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(read[path])
                    text = file.read()
                read[path] += len(text)
                console.out(text.decode(errors="replace"), end="", highlight=False)
        if over:
            break
        over = slurm.state(job_id) not in slurm.ALIVE
        time.sleep(POLL)
    end = slurm.state(job_id)
    console.print(f"job {job_id}: {end}", highlight=False)
    if end != "COMPLETED":
        raise SystemExit(1)


def submit_grid(
    options: Submission, grid: Grid, how: Options, parse: Parse, console: Console | None = None
) -> Path | None:
    """Runs a grid's cells as a job array, waits for them, and writes the report.

    Args:
        options: of the submission; the folder of `compare` is used in place of `options.folder`.
        grid: whose cells are run.
        how: options of `compare`.
        parse: parser of the arguments of `fit`.
        console: to print to; None for the terminal.

    Returns:
        The path of the report; None for a dry run.

    Raises:
        ValueError: for a command that does not parse, a cell on several nodes, or as `compare`.
        RuntimeError: where `sbatch` is missing or refuses the jobs.
    """
    console = console or Console()
    out = Path(how.out or Path("logs") / "compare" / grid.name)
    executor = ClusterExecutor(options.cluster, _cells_shape(grid, parse), out / "jobs", options.name)
    if options.dry_run:
        note = {"cells": len(grid.cells()), "at once": options.cluster.parallel, "slurm": executor.parameters}
        _show(note, console)
        return None
    return compare(grid, how, parse, executor, console)


def _cells_shape(grid: Grid, parse: Parse) -> Shape:
    """Returns the largest shape of a grid's cells; a shape depends on the workload alone."""
    shapes = []
    for workload in grid.workloads:
        arguments = fit_options(workload.configs, workload.overrides)
        shapes.append(Shape.of(parse(expand(arguments)).trainer, auto=1))
    if several := [shape for shape in shapes if shape.nodes > 1]:
        raise ValueError(f"trainer.num_nodes={several[0].nodes}: a cell of a grid runs on one node; give 1")
    return max(shapes, key=lambda shape: shape.devices)
