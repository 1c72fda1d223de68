"""Arrays with names in one safetensors file, written in one move; nothing is ever unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

Arrays = Mapping[str, NDArray[Any]]


def write(path: Path, kind: str, arrays: Arrays, words: Mapping[str, Any]) -> None:
    """Writes arrays, and words as JSON; whoever reads the file sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    metadata = {"format": kind, "words": json.dumps(words)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial, metadata=metadata)
    partial.replace(path)


def read(path: Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Reads `write`'s file.

    Raises:
        ValueError: where it is damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        words = json.loads(metadata["words"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, and inspect the run again") from error
    if metadata.get("format") != kind:
        raise ValueError(f"{path} is no {kind} but {metadata.get('format')!r}: give the folder of the run")
    return arrays, words
