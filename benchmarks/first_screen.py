"""Draws the README's picture: the final validation loss against the initial learning rate.

    python -m benchmarks.first_screen

The losses are those of docs/heldout.json, which `python -m benchmarks.heldout --docs docs` writes.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from jsonargparse import auto_cli

from benchmarks.heldout.suite import SUITE
from benchmarks.suites.schedules import TITLES, YARDSTICK

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURE = DOCS / "first-screen.svg"
COLOURS = {"default": "#0072B2", YARDSTICK: "#D55E00", "cosine": "#E69F00"}  # Okabe and Ito's
"""The schedules that are drawn."""

Losses = dict[str, list[float]]
"""By schedule, the loss from each initial rate over the yardstick's from its best; geometric mean over the cells."""


def losses_by_rate() -> Losses:
    """Reads the losses of the schedules that are drawn."""
    found: Losses = json.loads((DOCS / "heldout.json").read_text())["by_rate"]
    return {name: found[name] for name in COLOURS}


def draw(losses: Losses, path: Path = PICTURE) -> None:
    """Draws a line a schedule; the file is the same for the same losses."""
    matplotlib.rcParams["svg.hashsalt"] = "metalr"
    figure, axis = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    for name in reversed(COLOURS):
        values = losses[name]
        places = [SUITE.decades * (i / (len(values) - 1) - 0.5) for i in range(len(values))]
        width = 3.0 if name == "default" else 1.6
        axis.plot(places, values, color=COLOURS[name], lw=width, marker="o", ms=4, label=TITLES[name])
    axis.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    axis.set(ylim=(0.9, None), xlabel="initial learning rate: decades from the optimizer's usual one")
    axis.set_ylabel("final validation loss over that of\nthe best-tuned linear schedule with warm-up")
    axis.grid(alpha=0.25)
    axis.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Draws the picture."""
    losses = losses_by_rate()
    draw(losses)
    for name, values in losses.items():
        print(f"{name}_from_best_to_worst_rate: {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    auto_cli(main)
