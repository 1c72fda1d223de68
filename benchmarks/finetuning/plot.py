"""The suite's picture: the final loss by initial rate, a cell beside the other."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.finetuning.figures import Findings, rivals_of
from benchmarks.finetuning.page import NAMES
from benchmarks.finetuning.runs import BASELINES, LEARNED, OWN

COLOURS = {
    LEARNED: "#000000",
    **dict(zip((*BASELINES, "constant"), ("#E69F00", "#56B4E9", "#009E73"), strict=True)),
    **dict(zip(OWN, ("#CC79A7", "#0072B2"), strict=True)),
}
"""Okabe and Ito 2008; what is learned is black."""


def plot(findings: Findings, path: Path) -> None:
    """Draws the findings."""
    columns = min(3, max(1, len(findings.table)))
    lines = max(1, math.ceil(len(findings.table) / columns))
    figure = Figure(figsize=(4.4 * columns, 3.6 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, (cell, row) in zip(axes, findings.table.items(), strict=False):
        for name in (LEARNED, *BASELINES, "constant"):
            if name in row:
                width = 2.6 if name == LEARNED else 1.4
                style = {"label": NAMES.get(name, name), "color": COLOURS[name], "lw": width, "marker": "o", "ms": 3}
                axis.plot(findings.rates[cell], row[name].finals, **style)
        for name, scores in rivals_of(row):
            axis.axhline(scores.finals[0], label=NAMES[name], color=COLOURS[name], lw=1.2, ls="--")
        title = f"{cell.task}, {cell.optimizer}, {cell.steps} steps"
        axis.set(xscale="log", yscale="log", xlabel="initial rate", ylabel="final validation loss", title=title)
        axis.grid(alpha=0.3)
    for axis in axes[len(findings.table) :]:
        axis.set_visible(False)
    if findings.table and axes[0].get_legend_handles_labels()[0]:
        axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)
