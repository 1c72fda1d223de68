"""Figures of a policy's response to each feature, and of a meta-training."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metalr.inspection.history import MetaHistory, TaskRuns
from metalr.inspection.response import Responses
from metalr.plotting.canvas import diverging, panels, sequence, tidy
from metalr.plotting.palette import Theme


def response_curves(found: Responses, theme: Theme, around: str) -> Figure:
    """Draws the change against each feature; `around` names the states that the other features are taken from."""
    figure, axes = panels(len(found.features), sharey=True)
    for i, (axis, name) in enumerate(zip(axes, found.features, strict=True)):
        low, middle, high = found.curves[i]
        first = i == 0
        axis.axhline(0.0, color=theme.soft, lw=0.7)
        span = "80 % of the states have the feature here" if first else None
        axis.axvspan(found.seen[i, 1], found.seen[i, 3], color=theme.soft, alpha=0.16, lw=0, label=span)
        label = "change, in 80 % of the states" if first else None
        axis.fill_between(found.grid[i], low, high, color=theme.series[0], alpha=0.22, lw=0, label=label)
        axis.plot(found.grid[i], middle, color=theme.series[0], lw=1.8, label="in the median state" if first else None)
        axis.set_title(name, loc="left")
        axis.set_ylim(-1.05, 1.05)
        axis.set_xlim(found.grid[i, 0], found.grid[i, -1])
        axis.xaxis.set_major_locator(MaxNLocator(5))
        tidy(axis, theme)
    figure.supxlabel(f"feature, dimensionless, around {around}", fontsize=9)
    figure.supylabel("change of s, share of the largest allowed (> 0 raises the rate)", fontsize=9)
    figure.legend(loc="outside upper right", ncols=3, frameon=False)
    return figure


def response_history(history: MetaHistory, theme: Theme) -> Figure:
    """Draws the median response to each feature as a heat map: the feature across, meta-steps upwards."""
    figure, axes = panels(len(history.features), sharey=True)
    step = np.append(history.step, history.step[-1] + max(1, history.step[-1] - history.step[-2:][0]))
    for i, (axis, name) in enumerate(zip(axes, history.features, strict=True)):
        grid = history.grid[i]
        edges = np.linspace(grid[0], grid[-1], len(grid) + 1)
        mesh = axis.pcolormesh(
            edges, step, history.curves[:, i], cmap=diverging(theme), vmin=-1, vmax=1, rasterized=True
        )
        axis.set_title(name, loc="left")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        tidy(axis, theme, grid=False)
    figure.supxlabel("feature, dimensionless", fontsize=9)
    figure.supylabel("meta-step", fontsize=9)
    bar = figure.colorbar(mesh, ax=axes, aspect=45, pad=0.01, shrink=0.75)
    bar.set_label("change of s in the median state, share of the largest\nblue lowers the rate, orange raises it")
    bar.outline.set_visible(False)
    return figure


def task_runs(history: MetaHistory, theme: Theme) -> Figure:
    """Draws the rates and validation losses of the policy's runs on fixed tasks, from each initial rate."""
    count = len(history.runs)
    figure = Figure(figsize=(9.0, 2.35 * count + 0.8), layout="constrained")
    grid = figure.subplots(count, 2, squeeze=False)
    for (rate, loss), runs in zip(grid, history.runs, strict=True):
        colours = sequence(len(runs.rates), theme)
        for k, colour in enumerate(colours):
            rate.plot(runs.steps, runs.lr[k], color=colour, lw=1.3, label=f"{runs.rates[k]:.2g}")
            loss.plot(runs.evaluation_steps, runs.reference[k], color=theme.soft, lw=0.8, ls=(0, (2, 2)))
            loss.plot(runs.evaluation_steps, runs.learned[k], color=colour, lw=1.5)
        _label_runs(rate, loss, runs, theme)
    for axis in grid[-1]:
        axis.set_xlabel("inner step")
    grid[0, 1].plot([], [], color=theme.soft, lw=0.8, ls=(0, (2, 2)), label="reference schedule, from each rate")
    figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside upper right", frameon=False)
    title = f"the policy at meta-step {history.runs_at}, from each initial rate"
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return figure


def _label_runs(rate: Axes, loss: Axes, runs: TaskRuns, theme: Theme) -> None:
    for axis in (rate, loss):
        tidy(axis, theme)
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    rate.set_yscale("log")
    rate.set_ylabel("learning rate")
    rate.set_title(runs.name, loc="left")
    loss.set_ylabel("log(validation loss /\ninitial one), nats")
    beside: Any = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    rate.legend(title="initial rate", frameon=False, fontsize=7.5, title_fontsize=8, **beside)
