"""A canvas for figures of many panels: one style, on a light or a dark background."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from metalr.plotting.palette import THEMES, Theme

Draw = Callable[[Theme], Figure]
"""A function that draws a figure in a theme."""


def image(draw: Draw, theme: Theme, dpi: int = 90) -> NDArray[np.uint8]:
    """Draws a figure to pixels, uint8, (height, width, 3)."""
    with _style(theme):
        canvas = FigureCanvasAgg(draw(theme))
        canvas.figure.set_dpi(dpi)
        canvas.draw()
        pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return pixels


def save_png(path: Path, draw: Draw, theme: Theme, dpi: int = 110) -> Path:
    """Writes a figure as a PNG, and returns its path; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with _style(theme):
        figure = draw(theme)
        figure.set_dpi(dpi)
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return path


@contextmanager
def _style(theme: Theme) -> Iterator[None]:
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), theme.ink)
    paper = dict.fromkeys(("figure.facecolor", "axes.facecolor"), theme.paper)
    fixed = {"font.size": 9.0, "axes.titlesize": 9.0, "axes.labelsize": 9.0, "axes.linewidth": 0.7}
    with mpl.rc_context(ink | paper | fixed | {"font.family": "sans-serif", "figure.dpi": 100}):
        yield


def diverging(theme: Theme) -> Any:
    """Returns a colour map from blue (negative) through the background to orange, safe for the colour-blind."""
    stops: list[Any] = [_mixed(theme.series[1], theme.ink, 0.35), theme.series[1], theme.paper]
    stops += [theme.series[0], _mixed(theme.series[0], theme.ink, 0.35)]
    made: Any = LinearSegmentedColormap.from_list("diverging", stops)
    return made


def sequence(count: int, theme: Theme) -> list[Any]:
    """Returns colours for `count` ordered lines, all readable on the background."""
    low, high = (0.0, 0.82) if theme is THEMES["light"] else (0.25, 1.0)
    return [mpl.colormaps["viridis"](x) for x in np.linspace(low, high, count)]


def panels(count: int, height: float = 1.75, columns: int = 4, **options: Any) -> tuple[Figure, list[Axes]]:
    """Makes a figure with a grid of `count` small panels, `height` inches each; `options` go to `subplots`."""
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(2.65 * columns + 0.2, height * rows + 0.7), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    for axis in axes[count - columns : count]:  # the lowest of each column
        axis.tick_params(labelbottom=True)
    return figure, axes[:count]


def tidy(axis: Axes, theme: Theme, grid: bool = True) -> None:
    """Removes frames and long ticks, and adds a faint grid if wanted."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=2.5, pad=2)
    if grid:
        axis.grid(alpha=0.22, color=theme.soft, lw=0.5)
        axis.set_axisbelow(True)


def _mixed(colour: str, other: str, share: float) -> tuple[float, ...]:
    first, second = (np.array(mpl.colors.to_rgb(c)) for c in (colour, other))
    return tuple((1 - share) * first + share * second)
