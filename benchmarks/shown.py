"""Measures what a shipped policy makes of a validation loss: the same runs where it is shown one and where it is not.

    OMP_NUM_THREADS=1 python -m benchmarks.shown --docs docs

The runs are those of the held-out tasks of its last meta-training, on fresh instances. In both arms half of the
validation samples is kept for what a policy is shown and the other half scores the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.denormals import flushed_denormals
from benchmarks.rows import Row, read, write
from benchmarks.selection import heldout_tasks
from benchmarks.suites.estimates import Estimate, ratio
from benchmarks.suites.page import ranged
from benchmarks.two_arms import tested
from metalr import LRPolicy

SHOWN = 10
"""Validations in a run of the arm that is shown them."""


def main(policy: str = "default", seeds: Sequence[int] = (2, 3, 4), docs: Path = Path("results/shown")) -> None:
    """Runs both arms; writes `shown-<policy>.csv` and `.png`, and prints the table.

    Args:
        policy: shipped name, of one that reads a validation loss.
        seeds: of the instances, other than 1, which meta-trainings look at.
        docs: folder of the files.

    Raises:
        ValueError: for a policy that does not read one.
    """
    learned = LRPolicy.load(policy)
    if not learned.reads_validation:
        raise ValueError(f"policy={policy!r}: it does not read a validation loss; name one that does")
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / f"shown-{Path(policy).stem}.csv"
    rows = [row for row in read(path) if row["fingerprint"] == learned.fingerprint()]
    done = {(row["task"], row["seed"]) for row in rows}
    with flushed_denormals():
        for task in tqdm(heldout_tasks(policy)):
            for seed in seeds:
                if (task.name, str(seed)) in done:
                    continue
                # An interval of the whole run keeps the half apart, and its first validation would come after the end.
                never, often = (
                    tested(learned, replace(task, seed=seed, validation_interval=interval))
                    for interval in (task.total_steps, math.ceil(task.total_steps / SHOWN))
                )
                at = {"fingerprint": learned.fingerprint(), "task": task.name, "seed": str(seed)}
                for instance, change in enumerate((often - never).tolist()):
                    rows.append(at | {"instance": str(instance), "log_ratio": f"{change:.5f}"})
                write(rows, path)
    plot(rows, path.with_suffix(".png"))
    print("\n".join(table(rows)))


def compared(rows: Sequence[Row]) -> dict[str, Estimate]:
    """Compares the arms.

    Returns:
        By task, and "all" last: the geometric mean over instances of the final loss where one is shown over that where
        none is, and its 95 % interval; for all, over tasks.
    """
    changes: dict[str, list[float]] = {}
    for row in rows:
        changes.setdefault(row["task"], []).append(float(row["log_ratio"]))
    changes["all"] = [fmean(own) for own in changes.values()]
    found = {task: ratio([(math.exp(change), 1.0) for change in own]) for task, own in changes.items()}
    return {task: each for task, each in found.items() if each is not None}


def table(rows: Sequence[Row]) -> list[str]:
    """Writes the comparison as the lines of a table."""
    lines = ["| task | shown over not shown |", "|---|---|"]
    return lines + [f"| {task} | {ranged(each)} |" for task, each in compared(rows).items()]


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the comparison with its intervals."""
    found = compared(rows)
    figure, axes = plt.subplots(figsize=(6, 0.22 * len(found) + 0.8), layout="constrained")
    for height, (value, low, high, _) in enumerate(astuple(each) for each in found.values()):
        axes.errorbar(value, height, xerr=[[value - low], [high - value]], fmt="o", capsize=3, color="#0072B2")
    axes.axvline(1.0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xlabel("final validation loss, shown over not shown")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    auto_cli(main)
