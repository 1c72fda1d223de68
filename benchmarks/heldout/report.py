"""What the suite writes: its page of docs with figures, runs and plot, and compare's report of every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.heldout.figures import Findings
from benchmarks.heldout.page import write_page
from benchmarks.heldout.plot import plot
from benchmarks.heldout.runs import LOSS, Cell, HeldOutRun, Run
from benchmarks.heldout.table import Result, read_rows, write_rows
from metalr.compare.report import write_report
from metalr.compare.runner import Outcome


@dataclass(frozen=True)
class Goal:
    """Says what counts as doing well in a cell, as `metalr.compare.design.Measured`."""

    name: str
    metric: str = LOSS
    mode: str = "min"
    loss: str = LOSS
    threshold: float | None = None


@dataclass(frozen=True)
class Suite:
    """Names the axes of the suite, as `metalr.compare.design.Design`."""

    name: str
    workloads: list[Goal]
    schedule_names: list[str]
    candidate: str

    @classmethod
    def of(cls, name: str, runs: Sequence[HeldOutRun], candidate: str) -> Suite:
        """Reads the axes off the runs; the rivals stand in every cell of their task and horizon."""
        cells = dict.fromkeys(run.key.cell for run in runs if run.key.optimizer != "own")
        return cls(name, [Goal(c.name) for c in cells], list(dict.fromkeys(run.schedule for run in runs)), candidate)


def write_cells(suite: Suite, runs: Sequence[HeldOutRun], outcome: Outcome, out: Path) -> Path:
    """Writes compare's report of every cell: claims with intervals, tables, curves.

    Returns:
        The page.
    """
    cells = dict.fromkeys(run.key.cell for run in runs if run.key.optimizer != "own")
    records = dict(outcome.records)
    for run in runs:
        if run.key.optimizer == "own" and (record := outcome.records.get(run.name)):
            for cell in _homes(run, cells):
                records[f"{run.name} in {cell.name}"] = replace(record, workload=cell.name)
    return write_report(suite, runs, Outcome(records, outcome.failed), out)


def _homes(run: HeldOutRun, cells: Mapping[Cell, None]) -> list[Cell]:
    """The cells in which a rival's run is compared."""
    return [cell for cell in cells if (cell.task, cell.steps) == (run.key.task, run.key.steps)]


def write_docs(results: Mapping[Run, Result], planned: Sequence[Run], command: str, docs: Path) -> Findings:
    """Writes heldout.csv with a row a run, heldout.json with the figures, heldout.md and heldout.png."""
    docs.mkdir(parents=True, exist_ok=True)
    write_rows(results, docs / "heldout.csv")
    findings = Findings.of(results, planned, command)
    findings.save(docs / "heldout.json")
    plot(findings, docs / "heldout.png")
    write_page(findings, docs / "heldout.md")
    return findings


def rewrite_docs(source: Path, command: str, docs: Path) -> Findings:
    """Writes the page from what an earlier suite left.

    Args:
        source: heldout.csv, from whose runs everything is worked out again; or heldout.json, whose figures are those
            of the page.
        command: that is run, to stand on the page where everything is worked out again.
        docs: folder.

    Raises:
        ValueError: for a heldout.csv that has something else than runs.
    """
    if source.suffix != ".json":
        results = read_rows(source)
        return write_docs(results, list(results), command, docs)
    findings = Findings.load(source)
    docs.mkdir(parents=True, exist_ok=True)
    write_page(findings, docs / "heldout.md")
    return findings
