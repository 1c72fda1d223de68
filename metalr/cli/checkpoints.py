"""Finds the checkpoint from which an interrupted run is resumed."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

log = logging.getLogger("metalr")


def newest_whole(folder: Path) -> Path | None:
    """Returns the newest intact checkpoint below a folder.

    Newer files whose archive is incomplete or fails its checksums, as after a crash while writing, are named in a
    warning and left in place.

    Args:
        folder: searched for `*.ckpt`, also in its subfolders; it need not exist.

    Returns:
        The path, or None where there is no intact checkpoint.
    """
    paths = sorted((path for path in folder.rglob("*.ckpt") if path.is_file()), key=lambda path: path.stat().st_mtime)
    for path in reversed(paths):
        if problem := _problem(path):
            log.warning("%s is damaged (%s); using the previous checkpoint", path, problem)
        else:
            return path
    return None


def _problem(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)
    return f"checksum of {bad}" if bad else None
