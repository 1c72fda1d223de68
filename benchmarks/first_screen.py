"""Draws the README's picture: the final validation loss against the initial learning rate.

    python -m benchmarks.first_screen
    python -m benchmarks.first_screen --data $METALR_DATA

The first draws docs/first-screen.svg from docs/first-screen.csv, a row a run. The second trains what is missing of
these runs before, and writes that file: an Adult perceptron and a CIFAR-10 ResNet-8 at the held-out suite's short
horizon, with SGD and AdamW, from eight rates over four decades, learned and under two schedules that end at zero.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path
from statistics import fmean, geometric_mean

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it

import matplotlib
from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.heldout.suite import HeldOutRun
from benchmarks.heldout.tasks import TASKS, USUAL_LR
from benchmarks.suites.runs import LOSS, Run, flush_denormals
from benchmarks.suites.schedules import fingerprint
from benchmarks.suites.table import CAP
from metalr.compare.grid import rates_about
from metalr.compare.record import Record

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
ROWS = DOCS / "first-screen.csv"
PICTURE = DOCS / "first-screen.svg"
SCHEDULES = {"default": "learned", "cosine": "cosine", "linear": "linear to zero"}
COLOURS = {"default": "#0072B2", "cosine": "#D55E00", "linear": "#E69F00"}  # Okabe and Ito's
CELLS = [(task, optimizer) for task in ("adult", "cifar10") for optimizer in ("sgd", "adamw")]
RATES = 8
DECADES = 4.0

Losses = dict[str, list[float]]
"""By schedule, the loss from each initial rate over that of cosine at its best one; geometric mean over the cells."""


def runs(seeds: int, out: Path, data: str) -> list[HeldOutRun]:
    """Lists the runs, seed by seed."""
    return [
        HeldOutRun(Run(task, optimizer, TASKS[task].horizons[0], schedule, rate, seed, policy), out, data, schedule)
        for seed in range(seeds)
        for task, optimizer in CELLS
        for schedule in SCHEDULES
        for policy in [fingerprint(schedule) if schedule == "default" else ""]
        for rate in rates_about(USUAL_LR[optimizer], DECADES, RATES)
    ]


def train(planned: list[HeldOutRun]) -> None:
    """Trains what is missing, and writes a row a run."""
    flush_denormals()
    rows = []
    for run in tqdm(planned):
        if (record := Record.load(run.folder)) is None or record.fingerprint != run.fingerprint():
            run.run()
            record = Record.load(run.folder)
        losses = record.curves[LOSS][1]  # type: ignore[union-attr]
        key = run.key
        start = [key.task, key.optimizer, key.steps, key.schedule, f"{key.rate:.6g}", key.seed]
        rows.append([*start, f"{losses[0]:.6g}", f"{losses[-1]:.6g}"])
    with ROWS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["task", "optimizer", "steps", "schedule", "rate", "seed", "initial", "final"])
        writer.writerows(rows)


def losses_by_rate(path: Path = ROWS) -> Losses:
    """Reads the file of runs; a loss that is not finite or above ten times the initial one counts as ten times that."""
    found: dict[tuple[str, str], dict[str, dict[float, list[float]]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            limit, final = CAP * float(row["initial"]), float(row["final"])
            rates = found.setdefault((row["task"], row["optimizer"]), {}).setdefault(row["schedule"], {})
            rates.setdefault(float(row["rate"]), []).append(final if final <= limit else limit)
    ratios: dict[str, list[list[float]]] = {name: [] for name in SCHEDULES}
    for schedules in found.values():
        means = {name: [fmean(rates[rate]) for rate in sorted(rates)] for name, rates in schedules.items()}
        best = min(means["cosine"])
        for name in SCHEDULES:
            ratios[name].append([mean / best for mean in means[name]])
    return {name: [geometric_mean(column) for column in zip(*rows, strict=True)] for name, rows in ratios.items()}


def draw(losses: Losses, path: Path = PICTURE) -> None:
    """Draws a line a schedule; the file is the same for the same losses."""
    matplotlib.rcParams["svg.hashsalt"] = "metalr"
    figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    for name in reversed(SCHEDULES):
        places = [DECADES * (i / (RATES - 1) - 0.5) for i in range(RATES)]
        width = 3.0 if name == "default" else 1.6
        axis.plot(places, losses[name], color=COLOURS[name], lw=width, marker="o", ms=4, label=SCHEDULES[name])
    axis.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    axis.set(ylim=(0.9, None), xlabel="initial learning rate: decades from the optimizer's usual one")
    axis.set_ylabel("final validation loss\nover the best-tuned cosine's")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(data: str | None = None, seeds: int = 1, out: Path = Path("results/first_screen")) -> None:
    """Draws the picture.

    Args:
        data: folder of the real data; with it, the runs that are missing are trained before.
        seeds: of each run.
        out: folder of the runs.
    """
    if data is not None:
        train(runs(seeds, out, data))
    losses = losses_by_rate()
    draw(losses)
    for name, values in losses.items():
        print(f"{name}_from_best_to_worst_rate: {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    auto_cli(main)
