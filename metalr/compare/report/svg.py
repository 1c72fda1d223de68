"""Plots as SVG whose colours a page can set: readable in light, in dark and in print."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from metalr.compare.analysis import Analysis
from metalr.compare.report.plots import (
    INK,
    Look,
    final_against_rate,
    looks,
    loss_against_step,
    plain,
    rate_against_step,
    steps_to_threshold,
    win_matrix,
)
from metalr.compare.summary import Result
from metalr.plotting.palette import PALETTE, THEMES, Theme

Draw = Callable[[Axes, Result, Mapping[str, Look], str], None]
KINDS: dict[str, Draw] = {
    "rates": final_against_rate,
    "loss": loss_against_step,
    "schedule": rate_against_step,
    "speed": steps_to_threshold,
}
WIDTH, HEIGHT = 4.6, 3.3
"""Size of one plot, inches."""


def plots(analysis: Analysis) -> dict[str, str]:
    """Draws every plot of a report: SVG by name, `<workload>-<kind>` and `wins-...`."""
    style = looks(analysis)
    drawn: dict[str, str] = {}
    with _style():
        for result in analysis.results:
            for kind, draw in KINDS.items():
                if kind == "rates" and not result.swept:
                    continue
                bars = kind == "speed"
                figure, axis = _figure(0.75 + 0.42 * len(result.standings) if bars else HEIGHT)
                draw(axis, result, style, analysis.design.candidate)
                if not bars:
                    _legend(figure, axis)
                name = f"{result.workload.name}-{kind}"
                drawn[name] = _svg(figure, name)
        names = analysis.design.schedule_names
        if len(names) > 1:
            for name, shares in (("tuned", analysis.tuned_wins), ("same-rate", analysis.same_rate_wins)):
                figure, axis = _figure(0.9 + 0.5 * len(names))
                win_matrix(axis, names, shares)
                drawn[f"wins-{name}"] = _svg(figure, f"wins-{name}")
    return drawn


def overview(analysis: Analysis, name: str, columns: int = 3) -> str:
    """Draws all workloads on one SVG: the final metric against the initial rate; of a single rate, the loss by step."""
    style, count = looks(analysis), len(analysis.results)
    columns = min(columns, count)
    with _style():
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * -(-count // columns)), layout="constrained")
        for i, result in enumerate(analysis.results):
            axis = figure.add_subplot(-(-count // columns), columns, i + 1)
            draw = final_against_rate if result.swept else loss_against_step
            draw(axis, result, style, analysis.design.candidate)
            axis.set_title(plain(result.workload.name))
            if i == 0:
                _legend(figure, axis)
        return standalone(_svg(figure, name))


def standalone(svg: str) -> str:
    """Gives an SVG colours of its own, for a page that sets none; they follow the reader's light or dark mode."""
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(THEMES['dark'])} }} }}"
    head, end, rest = svg.partition(">")
    return f"{head}{end}<style>:root {{ {variables(THEMES['light'])} }} {dark}</style>{rest}"


def variables(theme: Theme) -> str:
    """Writes a theme as CSS."""
    named = {"ink": theme.ink, "soft": theme.soft, "paper": theme.paper}
    named |= {f"series-{i}": colour for i, colour in enumerate(theme.series)}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=2, frameon=False)


@contextmanager
def _style() -> Iterator[None]:
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    fixed = {"svg.fonttype": "none", "font.size": 10.0, "axes.titlesize": 10.0, "font.family": "sans-serif"}
    clear = dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none")
    lines = {"axes.grid": True, "grid.alpha": 0.18, "grid.color": INK, "grid.linewidth": 0.6, "hatch.linewidth": 1.2}
    open_ = {"axes.spines.top": False, "axes.spines.right": False}
    with mpl.rc_context(ink | fixed | clear | lines | open_):
        yield


def _svg(figure: Figure, name: str) -> str:
    """Writes an SVG to stand in a page: with ids of its own, and the page's colours where that has some."""
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
