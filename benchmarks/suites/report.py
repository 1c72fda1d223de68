"""What a suite does with its runs: those that are missing are run, and the reports are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.suites.figures import Findings
from benchmarks.suites.page import write_page
from benchmarks.suites.plot import plot
from benchmarks.suites.runs import LOSS, Run, SuiteRun
from benchmarks.suites.suite import Suite
from benchmarks.suites.table import Result, complete, read_rows, results_of, write_rows
from metalr.compare.executor import Executor
from metalr.compare.files import locked
from metalr.compare.report import write_report
from metalr.compare.runner import finished, run


@dataclass(frozen=True)
class Goal:
    """Says what counts as doing well in a cell, as `metalr.compare.design.Objective`."""

    name: str
    metric: str = LOSS
    mode: str = "min"
    loss: str = LOSS
    threshold: float | None = None


@dataclass(frozen=True)
class Axes:
    """Names the axes of some runs, as `metalr.compare.design.Design`."""

    name: str
    workloads: list[Goal]
    schedule_names: list[str]
    candidate: str

    @classmethod
    def of(cls, name: str, runs: Sequence[SuiteRun], candidate: str) -> Axes:
        """Reads the axes off the runs."""
        cells = dict.fromkeys(each.workload for each in runs)
        return cls(name, [Goal(cell) for cell in cells], list(dict.fromkeys(each.schedule for each in runs)), candidate)


def write_docs(results: Mapping[Run, Result], suite: Suite, docs: Path) -> Findings:
    """Writes a suite's .csv with a row a run, its .json with the figures, its page and its plot.

    The figures are those of the rows as they are written, so that the file gives the same ones again.
    """
    docs.mkdir(parents=True, exist_ok=True)
    rows = docs / f"{suite.name}.csv"
    write_rows(results, rows)
    findings = Findings.of(read_rows(rows), suite)
    findings.save(docs / f"{suite.name}.json")
    plot(findings, suite, docs / f"{suite.name}.png")
    write_page(findings, suite, docs / f"{suite.name}.md")
    return findings


def stored_results(runs: Sequence[SuiteRun], rows: Path) -> dict[Run, Result]:
    """Reads the results of those runs that a file of rows has, with the fingerprint that they would have now."""
    marks = {each.key: each.fingerprint() for each in runs}
    return {run: result for run, result in read_rows(rows).items() if marks.get(run) == result.fingerprint}


def run_and_report(
    runs: Sequence[SuiteRun],
    executor: Executor,
    schedules: Sequence[str],
    docs: Path,
    stored: Mapping[Run, Result] | None = None,
    report_only: bool = False,
) -> Findings:
    """Runs what is not finished, and writes both reports.

    Args:
        runs: all of them.
        executor: where they run.
        schedules: whose runs are run.
        docs: folder of the page.
        stored: results that are known; these runs are not run, and compare's report does not have them.
        report_only: whether to run nothing.

    Raises:
        SystemExit: with 130 after Ctrl-C; with 1 where a run failed, after the reports, or where no run is finished.
    """
    suite, out, known = runs[0].suite, runs[0].out, stored or {}
    own = [each for each in runs if each.key not in known]
    with locked(out):
        outcome = finished(own)
        if not report_only:
            run(own, outcome, executor, Console(), schedules)
        results = complete({**known, **results_of(own, outcome.records)}, [each.key for each in runs])
        findings = write_docs(results, suite, docs) if results else None
        done = [each for each in own if each.name in outcome.records]
        if any(each.key.schedule == suite.learned[0] for each in done):  # compare's report is about a candidate
            axes = Axes.of(suite.name, done, suite.learned[0])
            print(f"cells: {write_report(axes, own, outcome, out)}")
    if outcome.failed:
        first, log = next(iter(outcome.failed.items()))
        raise SystemExit(f"{len(outcome.failed)} runs failed, the first {first}:\n{log}")
    if findings is None:
        raise SystemExit(f"{out}: no schedule is finished in any cell, so that there is nothing to report")
    return findings
