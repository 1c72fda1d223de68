"""What `python train.py inspect` is given."""

from __future__ import annotations

from dataclasses import dataclass

from metalr.plotting.palette import theme_named


@dataclass(frozen=True)
class Inspection:
    """What is shown, and where the pictures go.

    Args:
        source: a shipped policy's name, a policy file, or the folder of a run's logs; of several versions in it, the
            last that has an inspection is taken.
        out: folder of the pictures; None for `inspection` in the run's folder, or `logs/inspect/<name>`.
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
