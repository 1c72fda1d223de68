"""How the final validation loss depends on the initial rate: learned against constant, step, cosine and linear.

    python -m benchmarks.sensitivity

Trains the digits convnet of the held-out suite with SGD with momentum and with Adam for 200 steps from each of ten
initial rates, log-spaced over 4.5 decades about the usual one, over 3 seeds: 300 runs. For a seed, all schedules and
rates have the same initial weights and batches. Finished runs are kept below OUT and not done again. Writes compare's
report there, and prints its table and the figures as `name: value`, which are in OUT.txt, too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli
from rich.console import Console

from benchmarks.denormals import flush_denormals
from benchmarks.heldout.suite import HeldOutRun
from benchmarks.heldout.tasks import USUAL_LR
from benchmarks.suites.report import Axes
from benchmarks.suites.runs import Run
from benchmarks.suites.schedules import fingerprint
from benchmarks.suites.table import Table, results_of, tabulate
from metalr import LRPolicy
from metalr.compare.files import locked
from metalr.compare.grid import rates_about
from metalr.compare.pool import PoolExecutor
from metalr.compare.report import print_tables, write_report
from metalr.compare.runner import finished, run
from metalr.compare.shell import command_line
from metalr.schedules import SHAPES

DECADES = 4.5
OPTIMIZERS = ("sgd", "adam")


def sensitivity_runs(policy: str, steps: int, rates: int, seeds: int, out: Path) -> list[HeldOutRun]:
    """Lists the runs; the arguments are those of `main`."""
    learned = "anytime" if LRPolicy.load(policy).anytime else "default"
    fingerprints = {learned: fingerprint(policy)}
    return [
        HeldOutRun(
            Run("digits", optimizer, steps, schedule, rate, seed, fingerprints.get(schedule, "")), out, source=policy
        )
        for optimizer in OPTIMIZERS
        for schedule in (learned, *SHAPES)
        for rate in rates_about(USUAL_LR[optimizer], DECADES, rates)
        for seed in range(seeds)
    ]


def ratios(table: Table, learned: str, baseline: str) -> list[str]:
    """Lists the `name: value` lines: learned against the best of the baseline's rates, by optimizer."""
    lines = []
    for cell, row in table.items():
        best = min(row[baseline].finals)
        for which, pick in (("median", median), ("worst", max)):
            value = pick(row[learned].finals) / best
            lines.append(f"{cell.optimizer}_learned_{which}_over_best_{baseline}: {value:.3f}")
    return lines


def main(
    policy: str = "default",
    steps: int = 200,
    rates: int = 10,
    seeds: int = 3,
    workers: int = 2,
    out: Path = Path("results/sensitivity"),
) -> None:
    """Runs what is missing, and reports.

    Args:
        policy: a shipped policy's name, or a policy file.
        steps: horizon of each run.
        rates: initial rates over 4.5 decades, 2 or more.
        seeds: runs from each rate.
        workers: processes.
        out: folder of the runs and the report.
    """
    if rates < 2 or seeds < 1:
        raise ValueError(f"rates={rates}, seeds={seeds}: give two rates or more, and one seed or more")
    runs = sensitivity_runs(policy, steps, rates, seeds, out)
    learned = runs[0].schedule
    console = Console()
    with locked(out):
        outcome = run(runs, finished(runs), PoolExecutor(workers, flush_denormals), console)
        if outcome.failed:
            raise SystemExit("\n".join(f"{name} failed:\n{log}" for name, log in outcome.failed.items()))
        suite = Axes.of("sensitivity", runs, learned)
        page = write_report(suite, runs, outcome, out)
    print_tables(suite, outcome, console)
    # An anytime policy, which is not given the horizon, is held against a schedule that is not either.
    baseline = "constant" if learned == "anytime" else "cosine"
    table = tabulate(results_of(runs, outcome.records))
    command = command_line(["python", "-m", "benchmarks.sensitivity", *sys.argv[1:]])
    lines = ratios(table, learned, baseline)
    out.with_suffix(".txt").write_text("\n".join([command, *lines]) + "\n")
    print("\n".join([f"report: {page}", *lines]))


if __name__ == "__main__":
    auto_cli(main)
