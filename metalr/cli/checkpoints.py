"""The newest checkpoint of a folder that is whole: what a run that was cut off goes on from."""

from __future__ import annotations

import logging
import zipfile
from pathlib import Path

log = logging.getLogger("metalr")


def newest_whole(folder: Path) -> Path | None:
    """The newest `*.ckpt` below a folder whose archive is complete and has its checksums; None where there is none.

    A newer one that is damaged, as by a node that was lost while it wrote, is named in a warning and left where it is.
    """
    paths = sorted((path for path in folder.rglob("*.ckpt") if path.is_file()), key=lambda path: path.stat().st_mtime)
    for path in reversed(paths):
        if problem := _problem(path):
            log.warning("%s is damaged (%s): the checkpoint before it is taken", path, problem)
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
