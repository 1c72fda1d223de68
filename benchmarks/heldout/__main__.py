"""Runs the held-out suite, or what is missing of it, and reports.

    python -m benchmarks.heldout --docs docs

Every run is a cell of `metalr.compare`: its folder below OUT has its record, and a finished one is never done again;
Ctrl-C waits for those under way. Runs of a learned schedule are kept by their policy's fingerprint, so that with a new
policy they alone are run. Prints the figures as `name: value` and a table at the end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli

from benchmarks.heldout.figures import Findings
from benchmarks.heldout.page import figure_lines, summary_table
from benchmarks.heldout.report import rewrite_docs, write_docs
from benchmarks.heldout.runs import HeldOutRun, plan, policy_of
from benchmarks.heldout.schedules import ORDER
from benchmarks.heldout.tasks import TASKS
from benchmarks.suites import report as suites
from benchmarks.suites.runs import flush_denormals
from benchmarks.suites.schedules import check_packages, fingerprint
from metalr.compare.executor import Executor
from metalr.compare.pool import PoolExecutor
from metalr.compare.shell import command_line


def main(
    data: str | None = os.environ.get("METALR_DATA"),
    out: Path = Path("results/heldout"),
    docs: Path | None = None,
    only: str | None = None,
    schedules: str | None = None,
    default: str = "default",
    anytime: str = "anytime",
    boosting: str = "boosting",
    boosting_anytime: str = "boosting_anytime",
    rates: int = 8,
    seeds: int = 3,
    scale: float = 1.0,
    jobs: int = 2,
    report_only: bool = False,
    source: Path | None = None,
) -> None:
    """Runs what is missing, and reports what is there.

    Args:
        data: folder of the real data; by default METALR_DATA's, without which it comes from the hub.
        out: folder of the runs and of compare's report of every cell.
        docs: folder of the page; by default that of the runs.
        only: tasks to run, comma-separated; all by default. The report is about these.
        schedules: to run, comma-separated; all by default. The report is about all that are finished.
        default: policy with a known horizon, a shipped one's name or a file.
        anytime: policy without one.
        boosting: policy of boosted trees with a known horizon.
        boosting_anytime: policy of boosted trees without one.
        rates: initial rates, 2 or more.
        seeds: runs from each rate.
        scale: of the horizons; below 1 to try the suite out.
        jobs: worker processes, of one thread each.
        report_only: whether to run nothing, and to report on what is finished.
        source: heldout.csv or heldout.json of an earlier suite, to write the page from in place of running anything.
    """
    suites.check_settings(rates, seeds, jobs, scale)
    command = command_line(["python", "-m", "benchmarks.heldout", *sys.argv[1:]])
    if source is not None:
        _show(rewrite_docs(source, command, docs or out))
        return
    tasks = suites.checked("only", only, list(TASKS))
    chosen = suites.checked("schedules", schedules, ORDER)
    sources = {"default": default, "anytime": anytime, "boosting": boosting, "boosting_anytime": boosting_anytime}
    runs = suite_runs(tasks, rates, seeds, scale, sources, data, out)
    if not report_only:
        check_packages(chosen)
    findings = run_and_report(runs, PoolExecutor(jobs, flush_denormals), chosen, command, out, docs or out, report_only)
    _show(findings)


def suite_runs(
    tasks: Sequence[str],
    rates: int,
    seeds: int,
    scale: float,
    sources: dict[str, str],
    data: str | None,
    out: Path,
) -> list[HeldOutRun]:
    """Lists the runs of the suite; the arguments are those of `main`."""
    policies = {name: fingerprint(source) for name, source in sources.items()}
    keys = plan(tasks, ORDER, rates, seeds, scale, policies)
    return [HeldOutRun(key, out, data, sources.get(policy_of(key.task, key.schedule), "")) for key in keys]


def run_and_report(
    runs: Sequence[HeldOutRun],
    executor: Executor,
    schedules: Sequence[str],
    command: str,
    out: Path,
    docs: Path,
    report_only: bool = False,
) -> Findings:
    """Runs what is not finished, and writes both reports.

    Raises:
        SystemExit: with 130 after Ctrl-C, with 1 where a run failed, after the reports.
    """
    keys = [each.key for each in runs]
    write = partial(write_docs, planned=keys, command=command, docs=docs)
    return suites.run_and_report("heldout", runs, executor, schedules, write, out, report_only)


def _show(findings: Findings) -> None:
    print("\n".join([summary_table(findings).body(), "", *figure_lines(findings)]))


if __name__ == "__main__":
    auto_cli(main)
