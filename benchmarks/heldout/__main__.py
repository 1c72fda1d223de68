"""Runs the held-out suite, or what is missing of it, and reports.

python -m benchmarks.heldout --docs docs

Every finished run is a line in OUT/runs.jsonl and is never done again; Ctrl-C loses those under way. Learned runs are
kept by their policy's fingerprint, so that with a new policy they alone are run. Prints what it will take, and at the
end the figures as `name: value`, a table, and what it took.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.heldout.pool import train_all
from benchmarks.heldout.report import ORDER, Report
from benchmarks.heldout.runs import one_thread, plan, predicted_seconds
from benchmarks.heldout.schedules import check_packages, fingerprint
from benchmarks.heldout.store import Store
from benchmarks.heldout.tasks import TASKS


def _checked(option: str, names: str | None, known: Sequence[str]) -> list[str]:
    """The names of a comma-separated list, all of `known` where it is None."""
    chosen = list(known) if names is None else names.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"{option}={names}: unknown {', '.join(unknown)}; choose of {', '.join(known)}")
    return chosen


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
    run: bool = True,
) -> None:
    """Runs what is missing, and reports what is there.

    Args:
        data: folder of the real data; by default METALR_DATA's, without which it comes from the hub.
        out: folder of the results.
        docs: folder of the report; by default that of the results.
        only: tasks to run, comma-separated; all by default. The report is about these.
        schedules: to run, comma-separated; all by default. The report is about all that are stored.
        default: policy with a known horizon, a shipped one's name or a file.
        anytime: policy without one.
        boosting: policy of boosted trees with a known horizon.
        boosting_anytime: policy of boosted trees without one.
        rates: initial rates, 2 or more.
        seeds: runs from each rate.
        scale: of the horizons; below 1 to try the suite out.
        jobs: worker processes, of one thread each.
        run: whether to run what is missing; otherwise only the report is made.
    """
    if rates < 2 or seeds < 1 or jobs < 1 or not 0.0 < scale < math.inf:
        raise ValueError(
            f"rates={rates}, seeds={seeds}, jobs={jobs}, scale={scale}: give two rates or more, one seed or more, one "
            "job or more and a scale above 0"
        )
    tasks = _checked("only", only, list(TASKS))
    chosen = _checked("schedules", schedules, ORDER)
    sources = {"default": default, "anytime": anytime, "boosting": boosting, "boosting_anytime": boosting_anytime}
    policies = {name: fingerprint(source) for name, source in sources.items()}
    one_thread()
    store = Store(out / "runs.jsonl")
    planned = plan(tasks, ORDER, rates, seeds, scale, policies)
    todo = [each for each in planned if run and each.schedule in chosen and each not in store.results]
    if todo:
        check_packages(chosen)
        start = time.perf_counter()
        predicted = predicted_seconds(todo, data, sources)
        print(
            f"{len(todo)} runs to do, {len(planned) - len(todo)} done or not asked for; predicted: "
            f"{predicted / 60:.1f} core-minutes, {predicted / 60 / jobs:.1f} minutes with {jobs} jobs",
            flush=True,
        )
        for done, result in tqdm(train_all(todo, jobs, data, sources), total=len(todo), desc="runs", smoothing=0.02):
            store.add(done, result)
        print(f"took {(time.perf_counter() - start) / 60:.1f} minutes")
    report = Report(planned, store)
    report.write(docs or out, " ".join(["python -m benchmarks.heldout", *sys.argv[1:]]))
    print("\n".join([*report.summary(), "", *report.figures()]))


if __name__ == "__main__":
    auto_cli(main)
