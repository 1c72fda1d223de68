"""One set of colours, markers and dashes for all figures, safe for the colour-blind, and the two themes."""

from __future__ import annotations

from dataclasses import dataclass

PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c8c8c")
"""Colours of Okabe and Ito (2008); the first is that of the learned schedule."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[object, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), "-", (0, (5, 2)), (0, (1.5, 1.5)))


@dataclass(frozen=True)
class Theme:
    """Holds the colours of a figure, as hexadecimal strings.

    Attributes:
        ink: of text and axes.
        soft: of secondary lines and text.
        paper: of the background.
        series: of lines, in the order of `PALETTE`.
    """

    ink: str
    soft: str
    paper: str
    series: tuple[str, ...]


THEMES = {
    "light": Theme("#17191c", "#5b6168", "#ffffff", PALETTE),
    "dark": Theme(
        "#e8eaed", "#a2a8b0", "#15171a", ("#ff8a3d", "#5ab4f0", "#2fcfa0", "#e6a0c8", "#8fd3ff", "#f2b632", "#a8a8a8")
    ),
}
"""The themes by name; the report of `compare` has the same on its page."""


def theme_named(name: str) -> Theme:
    """Returns the theme "light" or "dark".

    Raises:
        ValueError: for another name.
    """
    if name not in THEMES:
        raise ValueError(f"theme={name!r}: choose one of {', '.join(THEMES)}")
    return THEMES[name]
