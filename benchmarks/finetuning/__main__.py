"""Runs the fine-tuning suite, or what is missing of it, and reports.

    python -m benchmarks.finetuning --docs docs

Every run is a cell of `metalr.compare`: its folder below OUT has its record, and a finished one is never done again;
Ctrl-C waits for those under way. Runs of the learned schedule are kept by their policy's fingerprint, so that with a
new policy they alone are run. How long the missing runs take is measured and printed first; `--estimate_only true` ends
there. By default, every task is run with one seed at the short horizon, 150 steps, and SST-2 at the long one, 600, as
well: about two hours of two cores. `--horizons 150,600` runs all at both.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli

from benchmarks.finetuning import weights
from benchmarks.finetuning.estimate import core_seconds
from benchmarks.finetuning.figures import Findings
from benchmarks.finetuning.page import figure_lines, standings_table
from benchmarks.finetuning.report import rewrite_docs, write_docs
from benchmarks.finetuning.runs import LEARNED, ORDER, FineTuningRun, plan
from benchmarks.finetuning.tasks import DEFAULT_HORIZONS, HORIZONS, PACKAGES, TASKS
from benchmarks.suites import report as suites
from benchmarks.suites.runs import flush_denormals
from benchmarks.suites.schedules import check_packages, fingerprint
from metalr.compare.pool import PoolExecutor
from metalr.compare.runner import finished
from metalr.compare.shell import command_line


def main(
    data: str | None = os.environ.get("METALR_DATA"),
    out: Path = Path("results/finetuning"),
    docs: Path | None = None,
    only: str | None = None,
    schedules: str | None = None,
    horizons: str | None = None,
    policy: str = "default",
    rates: int = 5,
    seeds: int = 1,
    scale: float = 1.0,
    jobs: int = 2,
    estimate_only: bool = False,
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
        horizons: of every task, comma-separated: 150, 600 or both; by default 150, and 600 for SST-2 as well.
        policy: with a known horizon, a shipped one's name or a file.
        rates: initial rates over four decades, 2 or more; five are a decade apart.
        seeds: runs from each rate.
        scale: of the horizons; below 1 to try the suite out.
        jobs: worker processes, of one thread each.
        estimate_only: whether to print how long the missing runs take, and to end there.
        report_only: whether to run nothing, and to report on what is finished.
        source: finetuning.csv of an earlier suite, to write the page from in place of running anything.
    """
    suites.check_settings(rates, seeds, jobs, scale)
    command = command_line(["python", "-m", "benchmarks.finetuning", *sys.argv[1:]])
    if source is not None:
        _show(rewrite_docs(source, command, docs or out))
        return
    tasks = suites.checked("only", only, list(TASKS))
    chosen = suites.checked("schedules", schedules, ORDER)
    given = suites.checked("horizons", horizons, [str(each) for each in HORIZONS])
    steps = DEFAULT_HORIZONS if horizons is None else dict.fromkeys(tasks, tuple(map(int, given)))
    runs = suite_runs(tasks, steps, rates, seeds, scale, policy, data, out)
    if not report_only:
        check_packages(chosen)
        weights.check(dict.fromkeys(PACKAGES[name] for name in tasks))
        announce(runs, chosen, jobs)
    if not estimate_only:
        executor = PoolExecutor(jobs, flush_denormals)
        write = partial(write_docs, planned=[each.key for each in runs], command=command, docs=docs or out)
        _show(suites.run_and_report("finetuning", runs, executor, chosen, write, out, report_only))


def suite_runs(
    tasks: Sequence[str],
    horizons: Mapping[str, Sequence[int]],
    rates: int,
    seeds: int,
    scale: float,
    policy: str,
    data: str | None,
    out: Path,
) -> list[FineTuningRun]:
    """Lists the runs of the suite; the arguments are those of `main`."""
    keys = plan(tasks, ORDER, horizons, rates, seeds, scale, fingerprint(policy))
    return [FineTuningRun(key, out, data, policy if key.schedule == LEARNED else "") for key in keys]


def announce(runs: Sequence[FineTuningRun], schedules: Sequence[str], jobs: int) -> None:
    """Prints how long the missing runs of some schedules take, measured on a few steps."""
    done = finished(runs).records
    missing = [run for run in runs if run.schedule in schedules and run.name not in done]
    if missing:
        minutes = core_seconds(missing) / 60
        print(
            f"{len(missing)} runs are missing: about {minutes:.0f} minutes of a core, {minutes / jobs:.0f} with {jobs}"
        )


def _show(findings: Findings) -> None:
    print("\n".join([standings_table(findings).body(), "", *figure_lines(findings)]))


if __name__ == "__main__":
    auto_cli(main)
