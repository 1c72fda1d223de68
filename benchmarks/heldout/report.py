"""What the suite writes: its page of docs with figures, runs and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.heldout.figures import Findings
from benchmarks.heldout.page import write_page
from benchmarks.heldout.plot import plot
from benchmarks.suites.runs import Run
from benchmarks.suites.table import Result, read_rows, write_rows


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
