"""One safetensors file of named arrays and JSON: written atomically, and nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Arrays = Mapping[str, NDArray[Any]]


def write(path: Path, kind: str, arrays: Arrays, words: Mapping[str, Any]) -> None:
    """Writes arrays, and `words` as JSON, to one file; a concurrent reader sees the old file or the new one.

    Args:
        path: of the file; its folder is made.
        kind: of content, which `read` checks.
        arrays: by name.
        words: whatever JSON can hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    metadata = {"format": kind, "words": json.dumps(words)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial, metadata=metadata)
    partial.replace(path)


def read(path: Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Reads the file that `write` wrote.

    Args:
        path: of the file.
        kind: that it must be of.

    Returns:
        The arrays by name, and `words`.

    Raises:
        ValueError: for a file that is damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        words = json.loads(metadata["words"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and inspect the run again") from error
    if metadata.get("format") != kind:
        raise ValueError(f"{path} holds {metadata.get('format')!r} and no {kind}: give the folder of the run")
    return arrays, words


def check_names(found: Iterable[str], expected: Iterable[str], source: object) -> None:
    """Checks that stored arrays have the names that this version of metalr gives them.

    Args:
        found: names of the stored arrays.
        expected: names in this version.
        source: file or checkpoint that they come from, for the message.

    Raises:
        ValueError: for other names.
    """
    if different := sorted(set(found) ^ set(expected)):
        raise ValueError(
            f"{source} was written by another version of metalr ({', '.join(different)} differ): record the run again "
            "with this version"
        )
