"""A cell whose run is the `fit` of a train script, from its last checkpoint where it has one."""

from __future__ import annotations

import gc
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

from metalr.compare.callback import CHECKPOINT
from metalr.compare.cell import CellRun, made_with
from metalr.compare.grid import Cell
from metalr.compare.logs import read_record
from metalr.compare.record import Record, fingerprint
from metalr.compare.shell import command_line, expand


@dataclass(frozen=True)
class Script:
    """Names the train script whose `fit` the cells are.

    Attributes:
        argument: a path, or with `module` the name of a module (`python -m name`).
        module: whether it is one.
    """

    argument: str
    module: bool = False

    @classmethod
    def running(cls) -> Script:
        """Names the script of this process."""
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        return cls(sys.argv[0]) if spec is None else cls(spec.name.removesuffix(".__main__"), module=True)

    @property
    def command(self) -> list[str]:
        """What one types before the subcommand."""
        return ["python", "-m", self.argument] if self.module else ["python", self.argument]

    def run(self, arguments: list[str]) -> None:
        """Runs the script in this interpreter, as its command would."""
        before = sys.argv
        sys.argv = [self.argument, *arguments]
        try:
            if self.module:
                runpy.run_module(self.argument, run_name="__main__", alter_sys=True)
            else:
                sys.path.insert(0, str(Path(self.argument).resolve().parent))
                runpy.run_path(self.argument, run_name="__main__")
        finally:
            sys.argv = before


@dataclass(frozen=True)
class FitRun(CellRun):
    """Runs a cell of a `Grid` by `fit`, and by `test` where the workload asks for it.

    Attributes:
        cell: of the grid.
        out: the grid's folder.
        script: whose `fit` it is.
        keep_checkpoints: whether the checkpoints of a finished cell stay.
    """

    cell: Cell
    out: Path
    script: Script
    keep_checkpoints: bool = False

    @property
    def workload(self) -> str:
        """Names the grid's workload."""
        return self.cell.workload.name

    @property
    def schedule(self) -> str:
        """Names the grid's schedule."""
        return self.cell.schedule.name

    @property
    def rate(self) -> float:
        """Initial rate."""
        return self.cell.rate

    @property
    def seed(self) -> int:
        """Seed of `seed_everything`."""
        return self.cell.seed

    @property
    def metric(self) -> str:
        """Names the workload's metric."""
        return self.cell.workload.metric

    def fingerprint(self) -> str:
        """Digests the command and the contents of its configs and policies."""
        return fingerprint(self.cell)

    def command(self) -> list[str]:
        """Gives the command of `fit`, references to the environment unread."""
        return [*self.script.command, *self.cell.fit(self.out)]

    def commands(self) -> list[list[str]]:
        """Gives the command of `fit`, and of `test` after it where the end of the run is tested, as one types them."""
        tested = [[*self.script.command, *self.cell.test(self.out, self.folder / CHECKPOINT)]]
        return [self.command(), *(tested if self.cell.workload.test else [])]

    def arguments(self) -> list[list[str]]:
        """Makes the arguments of `fit`, and of `test` where there is one; `fit` resumes from a checkpoint."""
        checkpoint = self.folder / CHECKPOINT
        resume = [f"--ckpt_path={checkpoint}"] if checkpoint.is_file() else []
        fit = [*self.cell.fit(self.out), "--trainer.enable_progress_bar=false", *resume]
        return [fit, self.cell.test(self.out, checkpoint)] if self.cell.workload.test else [fit]

    def train(self) -> Record:
        """Runs the commands, and reads their logs."""
        for arguments in self.arguments():
            print("$", command_line([*self.script.command, *arguments]), flush=True)
            self.script.run(expand(arguments))
            gc.collect()
        return read_record(self.cell, self.folder, made_with())

    def clean(self) -> None:
        """Deletes checkpoints."""
        if not self.keep_checkpoints:
            for checkpoint in self.folder.rglob("*.ckpt"):
                checkpoint.unlink()
