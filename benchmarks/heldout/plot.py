"""The suite's picture: loss over best-tuned cosine's, by initial rate and cell by cell."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.heldout.figures import Findings
from benchmarks.heldout.page import NAMES
from benchmarks.heldout.runs import DECADES
from benchmarks.heldout.schedules import TUNED
from benchmarks.suites.schedules import LEARNED

COLOURS = ("#000000", "#7f7f7f", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
"""Okabe and Ito 2008; what is learned is black and grey."""

MARKS = {
    "default median": ("learned, median rate", "o", "black"),
    "default worst": ("learned, worst rate", "x", "black"),
    "prodigy_cosine": ("Prodigy with cosine", "s", COLOURS[2]),
    "schedule_free_adamw": ("schedule-free AdamW", "^", COLOURS[3]),
}
"""Columns of the cells that are drawn: label, marker, colour."""


def plot(findings: Findings, path: Path) -> None:
    """Draws the findings: on the left by initial rate, on the right cell by cell."""
    figure = Figure(figsize=(13, 0.8 + max(4.5, 0.3 * len(findings.cells))), layout="constrained")
    left, right = figure.subplots(1, 2)
    _by_rate(left, findings)
    _by_cell(right, findings)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def _by_rate(axis: Axes, findings: Findings) -> None:
    for name, colour in zip((*LEARNED, *TUNED), COLOURS, strict=True):
        if means := findings.by_rate.get(name):
            places = [DECADES * (i / max(1, len(means) - 1) - 0.5) for i in range(len(means))]
            width = 2.6 if name in LEARNED else 1.4
            axis.plot(places, means, label=NAMES.get(name, name), color=colour, lw=width, marker="o", ms=3)
    axis.axhline(1.0, color="grey", lw=0.8)
    axis.set(yscale="log", xlabel="decades from the optimizer's usual rate", title="geometric mean over cells")
    axis.set_ylabel("final validation loss over best-tuned cosine's")
    axis.legend(fontsize=8)


def _by_cell(axis: Axes, findings: Findings) -> None:
    cells = [row for row in findings.cells if row["cosine best"] is not None]
    for column, (label, marker, colour) in MARKS.items():
        points = [(row[column] / row["cosine best"], i) for i, row in enumerate(cells) if row[column] is not None]
        if points:
            axis.scatter(*zip(*points, strict=True), label=label, marker=marker, color=colour, s=22)
    axis.axvline(1.0, color="grey", lw=0.8)
    axis.set(xscale="log", xlabel="final validation loss over best-tuned cosine's", title="cell by cell")
    names = [f"{row['task']}, {row['optimizer']}, {row['steps']}" for row in cells]
    axis.set_yticks(range(len(cells)), names, fontsize=8)
    axis.invert_yaxis()
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
