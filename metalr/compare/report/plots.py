"""The report's plots, each on an axis: a workload's metric, loss, rates and speed by schedule, and who beats whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from metalr.compare.analysis import Analysis
from metalr.compare.record import Curve
from metalr.compare.summary import Result, final
from metalr.plotting.palette import DASHES, MARKERS, PALETTE

INK = "#101112"
"""Colour of text and axes; a page puts its own in its place, and its own for the series too."""

FEW = 5
"""Most initial rates that are each named on their axis."""

Look = tuple[str, str, object]
"""Colour, marker, dashes."""


def looks(analysis: Analysis) -> dict[str, Look]:
    """Chooses how each schedule is drawn, the same in all plots."""
    candidate = analysis.design.candidate
    names = [candidate] + [name for name in analysis.design.schedule_names if name != candidate]
    return {
        name: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(names)
    }


def final_against_rate(axis: Axes, result: Result, style: Mapping[str, Look], candidate: str) -> None:
    """Draws the final metric at each initial rate: mean and range over seeds; a run that diverged is at the edge."""
    mode, workload = result.workload.mode, result.workload
    everything = [final(r, workload) for s in result.standings for e in s.runs.values() for r in e.values()]
    finite = [value for value in everything if math.isfinite(value)] or [0.0, 1.0]
    edge = max(finite) if mode == "min" else min(finite)
    for standing in reversed(result.standings):  # the candidate on top
        values = [[_clip(final(r, workload), edge) for r in seeds.values()] for seeds in standing.runs.values()]
        _line(axis, list(standing.runs), values, standing.schedule, style, candidate)
        lost = [x for x, e in standing.runs.items() if not all(math.isfinite(final(r, workload)) for r in e.values())]
        if lost:
            axis.plot(lost, [edge] * len(lost), ls="", marker="x", ms=7, color=style[standing.schedule][0])
    axis.set(xscale="log", xlabel="initial learning rate", ylabel=f"final {plain(workload.metric)}")
    rates = sorted({rate for standing in result.standings for rate in standing.runs})
    if len(rates) <= FEW:
        axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axis.xaxis.set_minor_locator(NullLocator())
    _log_if_wide(axis, finite, mode)


def loss_against_step(axis: Axes, result: Result, style: Mapping[str, Look], candidate: str) -> None:
    """Draws the validation loss during training at each schedule's tuned rate: mean and range over seeds."""
    values: list[float] = []
    for standing in reversed(result.standings):
        curves = [r.curves[result.workload.loss] for r in standing.runs[standing.rate].values()]
        steps, matrix = _common(curves)
        values += [value for value in matrix.ravel() if math.isfinite(value)]
        label = f"{standing.schedule}, {standing.rate:.3g}"
        _line(axis, steps, list(matrix.T), standing.schedule, style, candidate, label, marker=len(steps) < 16)
    axis.set(xlabel="optimizer step", ylabel=f"{plain(result.workload.loss)} at the tuned rate")
    _log_if_wide(axis, values, "min")


def rate_against_step(axis: Axes, result: Result, style: Mapping[str, Look], candidate: str) -> None:
    """Draws the rate during training, first seed: each schedule at its tuned rate, the candidate from every rate."""
    for standing in reversed(result.standings):
        colour, _, dashes = style[standing.schedule]
        own = standing.schedule == candidate
        for rate, seeds in standing.runs.items():
            record = seeds[min(seeds)]
            steps, lrs = record.curves["lr"]
            tuned = rate == standing.rate
            if tuned or own:
                axis.plot(
                    steps,
                    [lr if lr > 0 else math.nan for lr in lrs],
                    color=colour,
                    ls=dashes,
                    lw=2.0 if tuned else 0.9,
                    alpha=1.0 if tuned else 0.55,
                    label=f"{standing.schedule}, {rate:.3g}" if tuned else None,
                )
    axis.set(xlabel="optimizer step", ylabel="learning rate", yscale="log")


def steps_to_threshold(axis: Axes, result: Result, style: Mapping[str, Look], candidate: str) -> None:
    """Draws steps to the threshold at the tuned rate: a bar is the median, hatched where censored, a dot a seed."""
    for row, standing in enumerate(result.standings):
        speed, end = standing.tuned_speed, max(r.steps for r in standing.runs[standing.rate].values())
        colour = style[standing.schedule][0]
        reached = math.isfinite(speed.steps)
        width = speed.steps if reached else end
        fill: dict[str, Any] = (
            {"color": colour} if reached else {"facecolor": "none", "edgecolor": colour, "hatch": "///"}
        )
        axis.barh(row, width, height=0.62, **fill)
        dots = [step for step in speed.each if math.isfinite(step)]
        axis.plot(dots, [row] * len(dots), ls="", marker="o", ms=4, mfc="none", mec=INK)
        text = f"{speed.steps:.0f}" if reached else f"not in {end}"
        axis.annotate(
            f"{text} ({speed.reached} of {speed.runs})", (width, row), (8, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks(range(len(result.standings)), [f"{s.schedule}, {s.rate:.3g}" for s in result.standings])
    axis.invert_yaxis()
    axis.margins(x=0.42)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"steps to {plain(result.workload.metric)} {result.threshold:.4g}")
    axis.grid(axis="y", visible=False)


def win_matrix(axis: Axes, names: Sequence[str], shares: np.ndarray) -> None:
    """Draws the share of runs (S, S) that the schedule of the row wins against that of the column."""
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_ylim(len(names) - 0.5, -0.5)
    for (i, j), share in np.ndenumerate(shares):
        if math.isnan(share):
            continue
        wins = share > 0.5
        colour, alpha = PALETTE[1] if wins else PALETTE[0], abs(share - 0.5) * 1.1
        axis.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=colour, alpha=alpha, lw=0))
        axis.text(j, i, f"{share:.0%}", ha="center", va="center", weight="bold" if wins else "normal")
    axis.set_xticks(range(len(names)), names)
    axis.set_yticks(range(len(names)), [f"{name} beats" for name in names])
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def plain(name: str) -> str:
    """Escapes a name for matplotlib, which would read `$...$` as mathematics."""
    return name.replace("$", r"\$")


def _line(
    axis: Axes,
    x: Sequence[float],
    values: Sequence[Sequence[float]],
    schedule: str,
    style: Mapping[str, Look],
    candidate: str,
    label: str | None = None,
    marker: bool = True,
) -> None:
    colour, shape, dashes = style[schedule]
    mean = [float(np.mean(each)) for each in values]
    axis.fill_between(x, [min(e) for e in values], [max(e) for e in values], color=colour, alpha=0.16, lw=0)
    axis.plot(
        x,
        mean,
        color=colour,
        ls=dashes,
        marker=shape if marker else "",
        ms=4.5,
        lw=2.4 if schedule == candidate else 1.5,
        label=label or schedule,
        zorder=3 if schedule == candidate else 2,
    )


def _common(curves: Sequence[Curve]) -> tuple[list[int], np.ndarray]:
    """Reads curves at the steps of the shortest, (seeds, steps); a value that is no number is a gap."""
    steps = min((curve[0] for curve in curves), key=len)
    rows = [np.interp(steps, at, values) for at, values in curves]
    matrix = np.array(rows)
    matrix[~np.isfinite(matrix)] = np.nan
    return steps, matrix


def _clip(value: float, edge: float) -> float:
    return value if math.isfinite(value) else edge


def _log_if_wide(axis: Axes, values: Sequence[float], mode: str) -> None:
    """A loss over more than a factor of five is read in logarithms."""
    if mode == "min" and values and min(values) > 0 and max(values) / min(values) > 5:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
