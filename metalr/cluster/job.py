"""The callables that submitit runs in a job: a command of the train script, or one cell of a grid."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from metalr.compare.cell import LOG, CellRun
from metalr.compare.fit import Script


@dataclass(frozen=True)
class ScriptJob:
    """Runs a command of the train script in each of a job's processes.

    It replaces the process (`exec`), so that the scheduler's signals reach the Trainer and the exit status reaches the
    scheduler: Lightning's SLURM plugin saves and requeues by itself.

    Attributes:
        script: the train script.
        arguments: of the command.
    """

    script: Script
    arguments: tuple[str, ...]

    def __call__(self) -> None:
        """Replaces this process by the command; does not return."""
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *self.script.command[1:], *self.arguments])


@dataclass(frozen=True)
class CellJob:
    """Runs one cell of a grid; a requeued cell resumes from its checkpoint.

    Attributes:
        cell_run: the cell.
    """

    cell_run: CellRun

    def __call__(self) -> None:
        """Runs the cell, with its output in the cell's log."""
        # Lightning would expect one process a device in a SLURM job; here one process starts the others.
        os.environ["SLURM_JOB_NAME"] = "interactive"
        self.cell_run.folder.mkdir(parents=True, exist_ok=True)
        log = (self.cell_run.folder / LOG).open("a", buffering=1)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        self.cell_run.run()
