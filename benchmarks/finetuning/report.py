"""What the suite writes: its page of docs with figures, runs and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.finetuning.figures import Findings
from benchmarks.finetuning.page import write_page
from benchmarks.finetuning.plot import plot
from benchmarks.suites.runs import Run
from benchmarks.suites.table import Result, read_rows, write_rows


def write_docs(results: Mapping[Run, Result], planned: Sequence[Run], command: str, docs: Path) -> Findings:
    """Writes finetuning.csv with a row a run, finetuning.md and finetuning.png."""
    docs.mkdir(parents=True, exist_ok=True)
    rows = docs / "finetuning.csv"
    write_rows(results, rows)
    findings = Findings.of(read_rows(rows), planned, command)  # of what it has, to its digits: so the page is its own
    plot(findings, docs / "finetuning.png")
    write_page(findings, docs / "finetuning.md")
    return findings


def rewrite_docs(source: Path, command: str, docs: Path) -> Findings:
    """Writes the page from the finetuning.csv of an earlier suite.

    Raises:
        ValueError: for a file that has something else than runs.
    """
    results = read_rows(source)
    return write_docs(results, list(results), command, docs)
