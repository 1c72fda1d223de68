"""The arguments of `python train.py inspect`."""

from __future__ import annotations

from dataclasses import dataclass

from metalr.plotting.palette import theme_named


@dataclass(frozen=True)
class Inspection:
    """Selects what to show, and where to write the pictures.

    Args:
        source: a shipped policy's name, a policy file, or a run's log folder; of several versions in it, the latest
            with an inspection is shown.
        out: folder of the pictures; None for `inspection` in the run's log folder, or `logs/inspect/<name>`.
        theme: of the pictures, "light" or "dark".

    Raises:
        ValueError: for an unknown theme.
    """

    source: str
    out: str | None = None
    theme: str = "light"

    def __post_init__(self) -> None:
        """Checks the theme."""
        theme_named(self.theme)
