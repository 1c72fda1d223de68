"""The command of a suite: its options, and what it does with them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.denormals import flush_denormals
from benchmarks.suites.estimate import core_seconds
from benchmarks.suites.figures import Findings
from benchmarks.suites.page import figure_lines, split_table, summary_table
from benchmarks.suites.plan import plan
from benchmarks.suites.report import run_and_report, stored_results, write_docs
from benchmarks.suites.runs import SuiteRun
from benchmarks.suites.schedules import check_packages, chosen_schedules, fingerprint
from benchmarks.suites.suite import Suite
from benchmarks.suites.table import read_rows
from metalr.compare.pool import PoolExecutor
from metalr.compare.runner import finished

POLICIES = ("default", "anytime", "boosting", "boosting_anytime")


def entry(kind: type[SuiteRun]) -> Callable[..., None]:
    """Makes the function whose arguments are a suite's command line."""

    def suite_main(out: Path = Path("results") / kind.suite.name, **options: Any) -> None:
        """Runs what is missing, and reports what is there.

        Args:
            out: folder of the runs and of compare's report of every cell.
            options: those of `benchmarks.suites.command.main`.
        """
        main(kind, out, **options)

    return suite_main


def main(
    kind: type[SuiteRun],
    out: Path,
    data: str | None = os.environ.get("METALR_DATA"),
    docs: Path | None = None,
    only: str | None = None,
    schedules: str | None = None,
    horizons: str | None = None,
    default: str = "default",
    anytime: str = "anytime",
    boosting: str = "boosting",
    boosting_anytime: str = "boosting_anytime",
    rates: int | None = None,
    seeds: int | None = None,
    scale: float = 1.0,
    jobs: int = 2,
    stored: Path | None = None,
    estimate_only: bool = False,
    report_only: bool = False,
    source: Path | None = None,
) -> None:
    """Runs what is missing, and reports what is there.

    Args:
        kind: the suite's runs.
        out: folder of the runs and of compare's report of every cell.
        data: folder of the real data; by default METALR_DATA's, without which it comes from the hub.
        docs: folder of the page; by default that of the runs.
        only: tasks to run, comma-separated; all by default. The report is about these.
        schedules: to run, comma-separated, all by default; "learned" and "baselines" stand for groups. The report is
            about all that are finished.
        horizons: of the tasks' horizons those to run, comma-separated; by default those that each task has for it.
        default: policy with a known horizon, a shipped one's name or a file.
        anytime: policy without one.
        boosting: policy of boosted trees with a known horizon.
        boosting_anytime: policy of boosted trees without one.
        rates: initial rates, 2 or more; by default the suite's number.
        seeds: runs from each rate; by default the suite's number.
        scale: of the horizons; below 1 to try the suite out.
        jobs: worker processes, of one thread each.
        stored: .csv of an earlier suite: its runs that are the same still are not done again.
        estimate_only: whether to print how long the missing runs take, and to end there.
        report_only: whether to run nothing, and to report on what is finished.
        source: .csv of an earlier suite, to write the page from in place of running anything.
    """
    suite = kind.suite
    check_settings(suite.rates if rates is None else rates, suite.seeds if seeds is None else seeds, jobs, scale)
    if source is not None:
        show(write_docs(read_rows(source), suite, docs or out), suite)
        return
    tasks = checked("only", only, list(suite.tasks))
    chosen = chosen_schedules(schedules, suite.schedules)
    sources = dict(zip(POLICIES, (default, anytime, boosting, boosting_anytime), strict=True))
    known = sorted({steps for task in suite.tasks.values() for steps in task.horizons})
    steps = None if horizons is None else [int(each) for each in checked("horizons", horizons, list(map(str, known)))]
    runs = suite_runs(kind, out, data, sources, tasks, steps, rates, seeds, scale)
    results = {} if stored is None else stored_results(runs, stored)
    if not report_only:
        check_packages(chosen)
        kind.check(tasks)
        announce([each for each in runs if each.schedule in chosen and each.key not in results], jobs)
    if not estimate_only:
        executor = PoolExecutor(jobs, flush_denormals)
        show(run_and_report(runs, executor, chosen, docs or out, results, report_only), suite)


def check_settings(rates: int, seeds: int, jobs: int, scale: float) -> None:
    """Refuses numbers of which no suite can be made.

    Raises:
        ValueError: for fewer than two rates, no seed, no job, or a scale that is not positive and finite.
    """
    if rates < 2 or seeds < 1 or jobs < 1 or not 0.0 < scale < math.inf:
        raise ValueError(
            f"rates={rates}, seeds={seeds}, jobs={jobs}, scale={scale}: give two rates or more, one seed or more, one "
            "job or more and a scale above 0"
        )


def checked(option: str, names: str | None, known: Sequence[str]) -> list[str]:
    """Reads the names of a comma-separated list, all of `known` where it is None.

    Raises:
        ValueError: for a name that is not known.
    """
    chosen = list(known) if names is None else names.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"{option}={names}: unknown {', '.join(unknown)}; choose of {', '.join(known)}")
    return chosen


def suite_runs(
    kind: type[SuiteRun],
    out: Path,
    data: str | None,
    sources: dict[str, str],
    tasks: Sequence[str] | None = None,
    horizons: Sequence[int] | None = None,
    rates: int | None = None,
    seeds: int | None = None,
    scale: float = 1.0,
) -> list[SuiteRun]:
    """Lists the runs of a suite.

    Args:
        kind: of the suite.
        out: folder of the runs.
        data: folder of the real data; None for the hub.
        sources: name or file of each of `POLICIES`.
        tasks: as the others, an argument of `plan`.
        horizons: of the tasks.
        rates: initial rates.
        seeds: runs from each rate.
        scale: of the horizons.
    """
    policies = {name: fingerprint(source) for name, source in sources.items()}
    keys = plan(kind.suite, policies, tasks, horizons, rates, seeds, scale)
    return [kind(key, out, data, sources.get(kind.suite.policy_of(key.task, key.schedule), "")) for key in keys]


def announce(runs: Sequence[SuiteRun], jobs: int) -> None:
    """Prints how long those of some runs take that are not finished, measured on a few steps."""
    done = finished(runs).records
    missing = [run for run in runs if run.name not in done]
    if missing:
        minutes = core_seconds(missing) / 60
        print(
            f"{len(missing)} runs are missing: about {minutes:.0f} minutes of a core, {minutes / jobs:.0f} with {jobs}"
        )


def show(findings: Findings, suite: Suite) -> None:
    """Prints the tables and the figures."""
    tables = [split_table(findings, name).body() for name in suite.learned]
    print("\n\n".join([*tables, summary_table(findings).body(), "\n".join(figure_lines(findings))]))
