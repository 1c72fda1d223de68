"""Draws the README's picture: the final validation loss against the initial learning rate.

    python -m benchmarks.first_screen

The losses are those of docs/final.json and docs/heldout.json, which the two suites write.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from jsonargparse import auto_cli

from benchmarks.final.suite import SUITE as FINAL
from benchmarks.heldout.suite import SUITE as DEVELOPMENT
from benchmarks.suites.schedules import TITLES, YARDSTICK
from benchmarks.suites.suite import Suite

matplotlib.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURE = DOCS / "first-screen.svg"
COLOURS = {"default": "#0072B2", YARDSTICK: "#D55E00", "cosine": "#E69F00"}  # Okabe and Ito's
"""The schedules that are drawn."""

SUITES = {"final suite": FINAL, "development suite": DEVELOPMENT}
"""The suites by the titles of their panels."""

Losses = dict[str, list[float]]
"""By schedule, the loss from each initial rate over the yardstick's from its best; geometric mean over the cells."""


def losses_by_rate(suite: Suite) -> Losses:
    """Reads the losses of the schedules that are drawn."""
    found: Losses = json.loads((DOCS / f"{suite.name}.json").read_text())["by_rate"]
    return {name: found[name] for name in COLOURS}


def draw(path: Path = PICTURE) -> None:
    """Draws a panel for each suite with a line a schedule; the file is the same for the same losses."""
    matplotlib.rcParams["svg.hashsalt"] = "metalr"
    figure, panels = plt.subplots(1, len(SUITES), figsize=(8.6, 3.8), layout="constrained", sharey=True)
    for axis, (title, suite) in zip(panels, SUITES.items(), strict=True):
        losses = losses_by_rate(suite)
        for name in reversed(COLOURS):
            values = losses[name]
            places = [suite.decades * (i / (len(values) - 1) - 0.5) for i in range(len(values))]
            width = 3.0 if name == "default" else 1.6
            axis.plot(places, values, color=COLOURS[name], lw=width, marker="o", ms=4, label=TITLES[name])
        axis.axhline(1.0, color="0.6", lw=0.8, zorder=0)
        axis.set(title=title, ylim=(0.9, 4.0), xlabel="initial rate: decades from the usual one")
        axis.grid(alpha=0.25)
    panels[0].set_ylabel("final validation loss over that of\nthe best-tuned linear with warm-up")
    panels[0].legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Draws the picture."""
    draw()
    for suite in SUITES.values():
        for name, values in losses_by_rate(suite).items():
            print(f"{suite.name}_{name}_from_best_to_worst_rate: {min(values):.3f} to {max(values):.3f}")


if __name__ == "__main__":
    auto_cli(main)
