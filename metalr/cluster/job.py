"""What a scheduler starts: the train script's own command, or one cell of a grid."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from metalr.compare.cell import LOG, CellRun
from metalr.compare.fit import Script


@dataclass(frozen=True)
class ScriptJob:
    """A command of the train script, in each of a job's processes.

    It takes the place of the process that started it, so that the scheduler's signals reach the Trainer and its exit
    status reaches the scheduler: Lightning's SLURM plugin saves and queues again by itself.

    Attributes:
        script: the train script.
        arguments: for it.
    """

    script: Script
    arguments: tuple[str, ...]

    def __call__(self) -> None:
        """Does not return."""
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *self.script.command[1:], *self.arguments])


@dataclass(frozen=True)
class CellJob:
    """One cell of a grid; queued again, it goes on from its checkpoint.

    Attributes:
        cell_run: the cell.
    """

    cell_run: CellRun

    def __call__(self) -> None:
        """Runs the cell; prints go to its log."""
        # To Lightning this is no job with a process a device, but one process that may start others.
        os.environ["SLURM_JOB_NAME"] = "interactive"
        self.cell_run.folder.mkdir(parents=True, exist_ok=True)
        log = (self.cell_run.folder / LOG).open("a", buffering=1)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        self.cell_run.run()
