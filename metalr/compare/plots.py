"""The report's plots, as SVG whose colours a page can set: readable in light, in dark and in print."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from metalr.compare.record import Curve
from metalr.compare.summary import Analysis, Result, final
from metalr.palette import DASHES, MARKERS, PALETTE

INK = "#101112"
"""Of text and axes; the page puts its own in its place, and its own for the series too."""

Look = tuple[str, str, object]
"""Colour, marker, dashes."""


def looks(analysis: Analysis) -> dict[str, Look]:
    """How each schedule is drawn, the same in all plots."""
    names = [analysis.grid.candidate] + [s.name for s in analysis.grid.ways if s.name != analysis.grid.candidate]
    return {
        name: (PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(names)
    }


def plots(analysis: Analysis) -> dict[str, str]:
    """Every plot of a report: SVG by name, `<workload>-<kind>` and `wins-...`."""
    style = looks(analysis)
    drawn: dict[str, str] = {}
    kinds: dict[str, Callable[[Result, Mapping[str, Look], str], Figure]] = {
        "rates": final_against_rate,
        "loss": loss_against_step,
        "schedule": rate_against_step,
        "speed": steps_to_threshold,
    }
    with _style():
        for result in analysis.results:
            for kind, draw in kinds.items():
                name = f"{result.workload.name}-{kind}"
                drawn[name] = _svg(draw(result, style, analysis.grid.candidate), name)
        if len(analysis.grid.ways) > 1:
            names = [schedule.name for schedule in analysis.grid.ways]
            drawn["wins-tuned"] = _svg(win_matrix(names, analysis.tuned_wins), "wins-tuned")
            drawn["wins-same-rate"] = _svg(win_matrix(names, analysis.same_rate_wins), "wins-same-rate")
    return drawn


def final_against_rate(result: Result, style: Mapping[str, Look], candidate: str) -> Figure:
    """The final metric at each initial rate: mean and range over seeds; a run that diverged at the edge."""
    figure, axis = _figure()
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
    axis.set(xscale="log", xlabel="initial learning rate", ylabel=f"final {workload.metric}")
    _log_if_wide(axis, finite, mode)
    _finish(axis)
    return figure


def loss_against_step(result: Result, style: Mapping[str, Look], candidate: str) -> Figure:
    """The validation loss during training at each schedule's tuned rate: mean and range over seeds."""
    figure, axis = _figure()
    values: list[float] = []
    for standing in reversed(result.standings):
        curves = [r.curves[result.workload.loss] for r in standing.runs[standing.rate].values()]
        steps, matrix = _common(curves)
        values += [value for value in matrix.ravel() if math.isfinite(value)]
        label = f"{standing.schedule}, {standing.rate:.3g}"
        _line(axis, steps, list(matrix.T), standing.schedule, style, candidate, label, marker=len(steps) < 16)
    axis.set(xlabel="optimizer step", ylabel=f"{result.workload.loss} at the tuned rate")
    _log_if_wide(axis, values, "min")
    _finish(axis)
    return figure


def rate_against_step(result: Result, style: Mapping[str, Look], candidate: str) -> Figure:
    """The rate during training, of the first seed: each schedule at its tuned rate, the candidate from every rate."""
    figure, axis = _figure()
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
    _finish(axis)
    return figure


def steps_to_threshold(result: Result, style: Mapping[str, Look], candidate: str) -> Figure:
    """Steps to the threshold at the tuned rate: the median as a bar, each seed as a dot; a hatched bar is censored."""
    figure, axis = _figure(height=0.75 + 0.42 * len(result.standings))
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
    axis.set_xlabel(f"steps to {result.workload.metric} {result.threshold:.4g}")
    _finish(axis, legend=False)
    axis.grid(axis="y", visible=False)
    return figure


def win_matrix(names: Sequence[str], shares: np.ndarray) -> Figure:
    """Share of runs (S, S) that the schedule of the row wins against that of the column."""
    figure, axis = _figure(height=0.9 + 0.5 * len(names))
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
    axis.spines[:].set_visible(False)
    return figure


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
    """Curves at the steps of the shortest, (seeds, steps); a value that is no number is a gap."""
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


def _figure(height: float = 3.3) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, height), layout="constrained")
    return figure, figure.subplots()


def _finish(axis: Axes, legend: bool = True) -> None:
    axis.grid(alpha=0.18, color=INK, lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    if legend:
        handles, labels = axis.get_legend_handles_labels()
        axis.figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=2, frameon=False)


@contextmanager
def _style() -> Iterator[None]:
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    fixed = {"svg.fonttype": "none", "font.size": 10.0, "axes.titlesize": 10.0, "font.family": "sans-serif"}
    clear = dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none")
    with mpl.rc_context(ink | fixed | clear | {"hatch.linewidth": 1.2}):
        yield


def _svg(figure: Figure, name: str) -> str:
    """An SVG to stand in a page: its names its own, its colours the page's where that has some."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sid="([^"]+)"', rf' id="{name}-\1"', svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", svg)
    for i, colour in enumerate(PALETTE):
        svg = svg.replace(colour, f"var(--series-{i}, {colour})")
    svg = svg.replace(INK, f"var(--ink, {INK})").replace("font: 10px 'sans-serif'", "font: 10px sans-serif")
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]+)"[^>]*>',
        r'<svg viewBox="\1" xmlns="http://www.w3.org/2000/svg" '
        r'xmlns:xlink="http://www.w3.org/1999/xlink" role="img">',
        svg,
        count=1,
    )
