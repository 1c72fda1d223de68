"""A suite's picture: loss over the yardstick's, by initial rate and cell by cell."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.suites.figures import Findings
from benchmarks.suites.schedules import LEARNED, TITLES, YARDSTICK
from benchmarks.suites.suite import Suite

COLOURS = {
    "default": "#000000",
    "anytime": "#7f7f7f",
    "linear_warmup": "#D55E00",
    "cosine_warmup": "#E69F00",
    "cosine": "#56B4E9",
    "wsd": "#CC79A7",
    "one_cycle": "#009E73",
    "constant": "#0072B2",
}
"""Schedules whose loss is drawn by initial rate. Okabe and Ito 2008; what is learned is black and grey."""

MARKS = {
    "default median": ("learned, median rate", "o", "black"),
    "default worst": ("learned, worst rate", "x", "black"),
    "cosine best": ("cosine, best rate", "|", COLOURS["cosine"]),
    "prodigy_plain_cosine": ("Prodigy with cosine, its defaults", "s", COLOURS["cosine_warmup"]),
    "schedule_free_adamw": ("schedule-free AdamW, best of three", "^", COLOURS["one_cycle"]),
}
"""Columns of the cells that are drawn: label, marker, colour."""

LABEL = f"final validation loss over best-tuned {TITLES[YARDSTICK]}"


def plot(findings: Findings, suite: Suite, path: Path) -> None:
    """Draws the findings: on the left by initial rate, on the right cell by cell."""
    figure = Figure(figsize=(13, 0.8 + max(4.5, 0.3 * len(findings.cells))), layout="constrained")
    left, right = figure.subplots(1, 2)
    _by_rate(left, findings, suite.decades)
    _by_cell(right, findings)
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _by_rate(axis: Axes, findings: Findings, decades: float) -> None:
    for name, colour in COLOURS.items():
        if means := findings.by_rate.get(name):
            places = [decades * (i / max(1, len(means) - 1) - 0.5) for i in range(len(means))]
            width = 2.6 if name in LEARNED else 1.4
            axis.plot(places, means, label=TITLES[name].split(":")[0], color=colour, lw=width, marker="o", ms=3)
    axis.axhline(1.0, color="grey", lw=0.8)
    axis.set(yscale="log", xlabel="decades from the optimizer's usual rate", title="geometric mean over cells")
    axis.set_ylabel(LABEL)


def _by_cell(axis: Axes, findings: Findings) -> None:
    cells = [row for row in findings.cells if row[f"{YARDSTICK} best"] is not None]
    for column, (label, marker, colour) in MARKS.items():
        points = [(row[column] / row[f"{YARDSTICK} best"], i) for i, row in enumerate(cells) if row[column] is not None]
        if points:
            axis.scatter(*zip(*points, strict=True), label=label, marker=marker, color=colour, s=22)
    axis.axvline(1.0, color="grey", lw=0.8)
    axis.set(xscale="log", xlabel=LABEL, title="cell by cell")
    names = [f"{row['task']}, {row['optimizer']}, {row['steps']}" for row in cells]
    axis.set_yticks(range(len(cells)), names, fontsize=8)
    axis.invert_yaxis()
