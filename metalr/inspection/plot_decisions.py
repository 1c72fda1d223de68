"""Figures of a run's decisions over time: the rate beside its reference, and each feature's contribution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from metalr.core.features import CLIP
from metalr.core.support import Support
from metalr.inspection.trace import Reached, Trace
from metalr.plotting.canvas import diverging, panels, tidy
from metalr.plotting.palette import Theme

EARLY = 32
"""First steps that have a column of their own, in a run of twice as many or more."""


def decisions(trace: Trace, theme: Theme) -> Figure:
    """Draws loss, rate, log multiplier, a heat map of the contributions to each change, and what the guards did."""
    guards = [name for i, name in enumerate(trace.guards) if len(trace) and trace.counts[-1, i] > 0]
    rows = len(trace.features) + 2
    heights = [1.0, 1.7, 1.1, 0.185 * rows, *([0.2 * len(guards)] if guards else [])]
    parts = [trace]
    if len(trace) and trace.step[-1] >= 2 * EARLY:
        parts = [trace.select(trace.step < EARLY), trace]
    figure = Figure(figsize=(10.6, sum(heights) + 1.9), layout="constrained")
    grid = figure.add_gridspec(len(heights), len(parts), height_ratios=heights, width_ratios=[1, 2.6][-len(parts) :])
    axes = np.empty((len(heights), len(parts)), dtype=object)
    for i, j in np.ndindex(axes.shape):
        share = {"sharex": axes[0, j] if i else None, "sharey": axes[i, 0] if j and i < 3 else None}
        axes[i, j] = figure.add_subplot(grid[i, j], **share)
    order = np.argsort(-trace.shares, kind="stable")
    limit = _limit(trace)
    for j, part in enumerate(parts):
        _curves(list(axes[:3, j]), part, theme)
        mesh = _heat(axes[3, j], part, order, limit, theme)
        if guards:
            _guards(axes[4, j], part, guards, theme)
        _finish_column(list(axes[:, j]), part, theme, first=j == 0)
    _thresholds(axes[1, -1], trace.reached, theme)
    axes[3, 0].set_yticks(range(rows), _row_names(trace, order), fontsize=8)
    bar = figure.colorbar(mesh, ax=axes[3, -1], pad=0.01, aspect=30)
    label = "contribution, share of the largest change allowed\nblue lowers the rate, orange raises it"
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)
    if len(parts) == 2:
        axes[0, 0].set_title(f"first {EARLY} steps", loc="left")
        axes[0, 1].set_title("whole run", loc="left")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False)
    return figure


def feature_curves(trace: Trace, theme: Theme, support: Support | None = None) -> Figure:
    """Draws the features at each decision, one panel each; with `support`, before the range of meta-training."""
    figure, axes = panels(len(trace.features), sharex=True, sharey=True)
    ranges = None if support is None or not support.is_bounded else support.ranges.cpu().numpy()
    for i, (axis, name) in enumerate(zip(axes, trace.features, strict=True)):
        if ranges is not None:
            label = "range in meta-training" if i == 0 else None
            axis.axhspan(*ranges[i], color=theme.series[1], alpha=0.13, lw=0, label=label)
        axis.plot(trace.step, trace.values[:, i], color=theme.series[0], lw=1.0, label="this run" if i == 0 else None)
        axis.set_title(name, loc="left")
        axis.set_ylim(-1.07 * CLIP, 1.07 * CLIP)
        axis.set_yticks((-CLIP, 0, CLIP))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        tidy(axis, theme)
    figure.supxlabel("optimizer step", fontsize=9)
    figure.supylabel("feature, dimensionless, clipped at ±3", fontsize=9)
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure


def _curves(axes: Sequence[Axes], part: Trace, theme: Theme) -> None:
    loss, rate, s = axes
    loss.plot(part.step, part.loss, color=theme.ink, lw=1.2)
    rate.plot(part.step, part.reference, color=theme.series[1], ls=(0, (5, 2)), lw=1.5, label="reference schedule")
    rate.plot(part.step, part.lr, color=theme.series[0], lw=1.9, label="applied rate")
    rate.set_yscale("log")
    s.axhline(0.0, color=theme.soft, lw=0.7)
    s.plot(part.step, part.log_multiplier, color=theme.series[0], lw=1.6)


def _finish_column(axes: Sequence[Axes], part: Trace, theme: Theme, first: bool) -> None:
    names = ("training loss\n(fast average)", "learning rate\n(first group)", "log multiplier s,\nnats")
    for axis, name in zip(axes, names, strict=False):
        tidy(axis, theme)
        if first:
            axis.set_ylabel(name)
        else:
            axis.tick_params(labelleft=False)
    for axis in axes[:-1]:
        axis.tick_params(labelbottom=False)
    for axis in axes[3:]:
        tidy(axis, theme, grid=False)
        axis.tick_params(left=False, labelleft=first)
        axis.spines[:].set_visible(False)
    axes[-1].set_xlabel("optimizer step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(5 if first else 8, integer=True))
    if len(part):
        axes[-1].set_xlim(0, part.step[-1] + 1)


def _edges(steps: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the edges of the cells: a decision stands for the steps up to the next that was kept."""
    return np.append(steps, steps[-1] + 1)


def _limit(trace: Trace) -> float:
    """Returns the end of the colour scale: a quantile, so that one large contribution does not make all others pale."""
    sizes = np.abs(trace.contributions / trace.bound[:, None])
    return max(float(np.quantile(sizes, 0.98)), 1e-3) if sizes.size else 1.0


def _heat(axis: Axes, part: Trace, order: NDArray[np.int64], limit: float, theme: Theme) -> QuadMesh:
    change = part.contributions.sum(1) + part.constant
    rows = np.column_stack((change, part.contributions[:, order], part.constant)) / part.bound[:, None]
    edges = np.arange(rows.shape[1] + 1) - 0.5
    mesh = axis.pcolormesh(
        _edges(part.step), edges, rows.T, cmap=diverging(theme), vmin=-limit, vmax=limit, rasterized=True
    )
    for line in (0.5, rows.shape[1] - 1.5):  # sum | features | constant
        axis.axhline(line, color=theme.ink, lw=0.8)
    axis.set_ylim(edges[-1], edges[0])
    return mesh


def _row_names(trace: Trace, order: NDArray[np.int64]) -> list[str]:
    shares = trace.shares
    named = [f"{trace.features[i]}  {shares[i]:4.0%}" for i in order]
    return ["change of s (sum)", *named, "constant (biases)"]


def _guards(axis: Axes, part: Trace, guards: Sequence[str], theme: Theme) -> None:
    """Draws a bar wherever a guard acted between a decision and the one kept before it."""
    edges = _edges(part.step)
    for row, name in enumerate(guards):
        acted = np.diff(part.counts[:, part.guards.index(name)], prepend=0) > 0
        spans = [(edges[i], edges[i + 1] - edges[i]) for i in np.flatnonzero(acted)]
        axis.broken_barh(spans, (row - 0.35, 0.7), color=theme.series[2], lw=1.0)
    axis.set_ylim(len(guards) - 0.5, -0.5)
    axis.set_yticks(range(len(guards)), [f"guard {name}" for name in guards], fontsize=8)


def _thresholds(axis: Axes, reached: Sequence[Reached], theme: Theme) -> None:
    """Draws thresholds as lines; of several at one step the last is named."""
    for step, label in {each.step: each.label for each in reached}.items():
        axis.axvline(step, color=theme.soft, lw=0.9, ls=(0, (1.5, 1.5)))
        axis.annotate(
            label,
            (step, 0.02),
            (-2, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=theme.soft,
        )
