"""How the final validation loss depends on the initial rate: learned against constant, step, cosine and linear.

    python benchmarks/sensitivity.py

Trains the digits convnet (batch norm off) with SGD with momentum and with Adam for 200 steps from each of ten
initial rates, log-spaced over 4.5 decades about the usual one, over 3 seeds: 300 ordinary PyTorch runs. For a seed,
all schedules and rates have the same initial weights and batches. Prints a table, the figures as `name: value`,
and writes a plot and a CSV file.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the collections beside train.py

from datamodules.digits import load_splits
from metalr import LRPolicy, MetaLR
from metalr.schedules import SHAPES, HorizonLR
from models import ConvNet

BATCH_SIZE = 32
DECADES = 4.5
USUAL_LR = {"sgd": 0.1, "adam": 1e-3}
LEARNED = "learned"
SCHEDULES = (LEARNED, *SHAPES)


@dataclass(frozen=True)
class Cell:
    """One run of the grid."""

    optimizer: str
    schedule: str
    lr: float
    seed: int


def _batches(samples: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while done < steps:
        epoch = torch.randperm(samples, generator=generator)
        for batch in epoch[: samples // BATCH_SIZE * BATCH_SIZE].split(BATCH_SIZE)[: steps - done]:
            done += 1
            yield batch


def _optimizer(name: str, model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return torch.optim.Adam(model.parameters(), lr=lr)


_splits = cache(load_splits)


def train(cell: Cell, steps: int, policy: str) -> float:
    """Final validation loss of one run; infinite where it is not a number."""
    torch.set_num_threads(1)
    splits = _splits()
    images, labels = splits["train"]
    torch.manual_seed(cell.seed)
    model = ConvNet()
    optimizer = _optimizer(cell.optimizer, model, cell.lr)
    learned = cell.schedule == LEARNED
    chosen = LRPolicy.load(policy)
    meta_lr = MetaLR(optimizer, None if chosen.anytime else steps, chosen) if learned else None
    scheduler = None if learned else HorizonLR(optimizer, cell.schedule, steps)
    for batch in _batches(len(images), steps, cell.seed):
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        if meta_lr is not None:
            meta_lr.step(loss)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    with torch.no_grad():
        final = float(F.cross_entropy(model(splits["val"][0]), splits["val"][1]))
    return final if math.isfinite(final) else math.inf


def _grid(rates: int, seeds: int) -> list[Cell]:
    exponents = [DECADES * (i / (rates - 1) - 0.5) for i in range(rates)]
    return [
        Cell(optimizer, schedule, usual * 10**exponent, seed)
        for optimizer, usual in USUAL_LR.items()
        for schedule in SCHEDULES
        for exponent in exponents
        for seed in range(seeds)
    ]


Curve = dict[float, list[float]]
"""Final losses over seeds, by initial rate."""


def _curves(results: dict[Cell, float]) -> dict[tuple[str, str], Curve]:
    curves: dict[tuple[str, str], Curve] = {}
    for cell, loss in results.items():
        curves.setdefault((cell.optimizer, cell.schedule), {}).setdefault(cell.lr, []).append(loss)
    return curves


def _summary(curve: Curve) -> tuple[float, float, float]:
    """Best, median and worst over initial rates of the mean over seeds."""
    means = [fmean(losses) for losses in curve.values()]
    return min(means), median(means), max(means)


def _print_table(curves: dict[tuple[str, str], Curve]) -> None:
    """One row a schedule; a run that diverged is shown as 99."""
    print(
        f"\n{'optimizer':<10}{'schedule':<10}{'best rate':>10}{'median rate':>12}{'worst rate':>11}   by initial rate"
    )
    for (optimizer, schedule), curve in curves.items():
        best, middle, worst = _summary(curve)
        cells = " ".join(f"{min(fmean(losses), 99.0):.3f}" for losses in curve.values())
        print(f"{optimizer:<10}{schedule:<10}{best:>10.4f}{middle:>12.4f}{min(worst, 99.0):>11.4f}   {cells}")


def _figures(curves: dict[tuple[str, str], Curve], baseline: str) -> list[str]:
    """The `name: value` lines: learned against the best of the baseline's ten rates."""
    lines = []
    for optimizer in USUAL_LR:
        tuned = _summary(curves[optimizer, baseline])[0]
        _, middle, worst = _summary(curves[optimizer, LEARNED])
        lines.append(f"{optimizer}_learned_median_over_best_{baseline}: {middle / tuned:.3f}")
        lines.append(f"{optimizer}_learned_worst_over_best_{baseline}: {worst / tuned:.3f}")
    return lines


def _plot(curves: dict[tuple[str, str], Curve], steps: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(SCHEDULES, ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7"), strict=True))  # Okabe-Ito
    figure, axes = plt.subplots(1, len(USUAL_LR), figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, optimizer in zip(axes, USUAL_LR, strict=True):
        for schedule in SCHEDULES:
            curve = curves[optimizer, schedule]
            rates, losses = list(curve), [[min(x, 10.0) for x in values] for values in curve.values()]
            width = 2.6 if schedule == LEARNED else 1.4
            axis.plot(
                rates,
                [fmean(x) for x in losses],
                label=schedule,
                color=colours[schedule],
                lw=width,
                marker="o",
                ms=3,
            )
            axis.fill_between(
                rates, [min(x) for x in losses], [max(x) for x in losses], color=colours[schedule], alpha=0.12
            )
        axis.set(xscale="log", yscale="log", xlabel="initial learning rate", title=f"{optimizer}, {steps} steps")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("final validation loss (mean and range over seeds)")
    axes[0].legend()
    figure.savefig(path, dpi=150)


def main(
    policy: str = "default",
    steps: int = 200,
    rates: int = 10,
    seeds: int = 3,
    workers: int = 2,
    out: str = "results",
) -> None:
    """Runs the grid.

    Args:
        policy: a shipped policy's name, or a policy file.
        steps: horizon of each run.
        rates: initial rates over 4.5 decades.
        seeds: runs from each rate.
        workers: processes.
        out: folder of the plot and the CSV file.
    """
    # An anytime policy, which is not told the horizon, is held against a schedule that is not either. A wrong name
    # is told here, before the work starts.
    baseline = "constant" if LRPolicy.load(policy).anytime else "cosine"
    if rates < 2 or seeds < 1:
        raise ValueError(f"rates={rates}, seeds={seeds}: give two rates or more, and one seed or more")
    grid = _grid(rates, seeds)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers) as pool:
        run = partial(train, steps=steps, policy=policy)
        losses = tqdm(pool.map(run, grid, chunksize=4), total=len(grid), desc="runs")
        results = dict(zip(grid, losses, strict=True))
    with (folder / "sensitivity.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*asdict(grid[0]), "val_loss"])
        writer.writeheader()
        writer.writerows(asdict(cell) | {"val_loss": loss} for cell, loss in results.items())
    curves = _curves(results)
    _plot(curves, steps, folder / "sensitivity.png")
    _print_table(curves)
    print(f"\nplot: {folder / 'sensitivity.png'}")
    command = " ".join(["python benchmarks/sensitivity.py", *sys.argv[1:]])
    lines = _figures(curves, baseline)
    (folder / "sensitivity.txt").write_text("\n".join([command, *lines]) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    auto_cli(main)
