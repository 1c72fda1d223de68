"""The interface of a cell that the runner and the executors use, whatever trains it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from abc import ABC, abstractmethod
from pathlib import Path

from metalr.compare.files import locked
from metalr.compare.grid import cell_name
from metalr.compare.record import Record

LOG = "log.txt"
"""In a cell's folder: what its run prints."""


class CellRun(ABC):
    """Runs one cell in a process of its own, here or on a node of a cluster, and leaves its record.

    Subclasses are frozen dataclasses that can be pickled.

    Attributes:
        out: the grid's folder.
    """

    out: Path

    @property
    @abstractmethod
    def workload(self) -> str:
        """Names what is trained."""

    @property
    @abstractmethod
    def schedule(self) -> str:
        """Names what sets the rate."""

    @property
    @abstractmethod
    def rate(self) -> float:
        """Initial rate."""

    @property
    @abstractmethod
    def seed(self) -> int:
        """Seed of initialisation and batches."""

    @property
    @abstractmethod
    def metric(self) -> str:
        """Names the figure of the record's `final` that decides."""

    @property
    def name(self) -> str:
        """Unique in a grid; also the cell's folder below that of the grid."""
        return cell_name(self.workload, self.schedule, self.rate, self.seed)

    @property
    def folder(self) -> Path:
        """The cell's own folder."""
        return self.out / self.name

    @abstractmethod
    def fingerprint(self) -> str:
        """Digests everything that decides the run."""

    @abstractmethod
    def command(self) -> list[str]:
        """Gives the command that runs this cell by itself, for the report."""

    @abstractmethod
    def train(self) -> Record:
        """Trains from the start or from what an interrupted run left."""

    def clean(self) -> None:  # noqa: B027 - most runs leave nothing to delete
        """Deletes what a finished cell does not need."""

    def run(self) -> None:
        """Trains, and writes the record.

        Raises:
            RuntimeError: where another process is at the same cell.
            SystemExit, Exception: as the training ends.
        """
        with locked(self.folder):
            self.train().save(self.folder)
            self.clean()


def made_with() -> dict[str, str]:
    """Names the versions and the device of this process."""
    import torch

    versions = {name: importlib.metadata.version(name) for name in ("metalr", "torch", "lightning")}
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    return {"python": platform.python_version(), **versions, "device": device}


def tail(folder: Path, lines: int = 25) -> str:
    """Reads the end of a cell's log."""
    log = folder / LOG
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
