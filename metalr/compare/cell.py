"""Runs one cell to its end, in a process of its own: here, or on a node of a cluster."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

from metalr.compare.files import locked
from metalr.compare.grid import Cell, expand

LOG = "log.txt"
"""In a cell's folder: what its commands print."""


@dataclass(frozen=True)
class Script:
    """The train script whose `fit` the cells are.

    Attributes:
        argument: a path, or with `module` the name of a module (`python -m name`).
        module: whether it is one.
    """

    argument: str
    module: bool = False

    @classmethod
    def running(cls) -> Script:
        """The script of this process."""
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        return cls(sys.argv[0]) if spec is None else cls(spec.name.removesuffix(".__main__"), module=True)

    @property
    def command(self) -> list[str]:
        """As one types it, before the subcommand."""
        return ["python", "-m", self.argument] if self.module else ["python", self.argument]

    def run(self, arguments: list[str]) -> None:
        """Runs it in this interpreter, as the command would."""
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
class CellRun:
    """One cell to be run.

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
    def folder(self) -> Path:
        """Of the cell."""
        return self.out / self.cell.name

    def commands(self) -> list[list[str]]:
        """The arguments of `fit`, and of `test` where there is one: from the last checkpoint, where there is one."""
        from metalr.compare.callback import CHECKPOINT

        checkpoint = self.folder / CHECKPOINT
        resume = [f"--ckpt_path={checkpoint}"] if checkpoint.is_file() else []
        fit = [*self.cell.fit(self.out), "--trainer.enable_progress_bar=false", *resume]
        return [fit, self.cell.test(self.out, checkpoint)] if self.cell.workload.test else [fit]


def run_cell(task: CellRun) -> None:
    """Trains from the start or the last checkpoint, tests, and writes the record.

    Raises:
        RuntimeError: where another process is at the same cell.
        SystemExit, Exception: as the train script ends.
    """
    from metalr.compare.record import read_record

    with locked(task.folder):
        for arguments in task.commands():
            print("$", *task.script.command, *arguments, flush=True)
            task.script.run(expand(arguments))
            gc.collect()
        read_record(task.cell, task.folder, made_with()).save(task.folder)
        if not task.keep_checkpoints:
            for checkpoint in task.folder.rglob("*.ckpt"):
                checkpoint.unlink()


def made_with() -> dict[str, str]:
    """Versions and device of this process."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in ("metalr", "torch", "lightning")}
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    return {"python": platform.python_version(), **versions, "device": device}


def tail(folder: Path, lines: int = 25) -> str:
    """The end of a cell's log."""
    log = folder / LOG
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
