"""Trained starts on disk: networks trained on large synthetic data, made once by `python -m metalr.meta.pretrain`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from metalr.meta.architectures import MLP, ConvNet, Transformer
from metalr.meta.net import Net

VERSION = 1
"""Of the files' content; one of another version is refused."""

VARIABLE = "METALR_STARTS"
"""Environment variable that names the folder of the starts."""

COMMAND = "python -m metalr.meta.pretrain"

_MANIFEST = "manifest.json"
_NETS: dict[str, type[Any]] = {net.__name__: net for net in (MLP, ConvNet, Transformer)}


def default_folder() -> Path:
    """Returns the folder of starts where none is given: $METALR_STARTS, or metalr/starts in the user's cache folder."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metalr" / "starts"


@dataclass(frozen=True)
class Starts:
    """Holds P trained networks of one kind, and what they were trained on.

    Attributes:
        name: of the recipe.
        net: the network that was trained.
        theta: trained parameters, (P, net.size).
        world: what the data is made from, tensors by name, (P, ...) each.
    """

    name: str
    net: Net
    theta: Tensor
    world: Mapping[str, Tensor]


class StartsFolder:
    """Reads and writes a folder of starts: a safetensors file for each recipe, and a manifest of what made it.

    Args:
        path: the folder; `default_folder()` where None.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path else default_folder()

    @property
    def remedy(self) -> str:
        """The command that makes what is missing."""
        return f"make it by `{COMMAND} --out {self.path}`"

    def manifest(self) -> dict[str, Any]:
        """Reads what the folder holds, by name of the recipe; empty where there is no folder.

        Raises:
            ValueError: for a manifest that cannot be read or is of another version.
        """
        file = self.path / _MANIFEST
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text())
            version, starts = content["version"], dict(content["starts"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: no manifest of trained starts; delete the folder and {self.remedy}") from error
        if version != VERSION:
            raise ValueError(f"{file}: version {version}, needed is {VERSION}; delete the folder and {self.remedy}")
        return starts

    def names(self, kind: str) -> tuple[str, ...]:
        """Lists the names of the starts of one kind, "language" or "scenes", in alphabetical order.

        Raises:
            FileNotFoundError: where there are none.
        """
        names = sorted(name for name, entry in self.manifest().items() if entry["recipe"]["kind"] == kind)
        if not names:
            raise FileNotFoundError(f"folder={self.path}: no trained starts of kind {kind!r} there; {self.remedy}")
        return tuple(names)

    def write(self, starts: Starts, recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Writes a file, and then its line in the manifest, each in one move.

        Args:
            starts: what was trained.
            recipe: what made them, JSON.
            facts: what else the manifest keeps, JSON.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self._file(starts.name)
        tensors = {"theta": starts.theta} | {f"world.{name}": value for name, value in starts.world.items()}
        part = file.with_suffix(".part")
        save_file({name: value.contiguous() for name, value in tensors.items()}, part)
        part.replace(file)
        net = {"class": type(starts.net).__name__, **asdict(starts.net)}  # type: ignore[call-overload]
        entry = {"recipe": dict(recipe), "net": net, "sha256": _digest(file), **facts}
        content = {"version": VERSION, "starts": self.manifest() | {starts.name: entry}}
        part = self.path / f"{_MANIFEST}.part"
        part.write_text(json.dumps(content, indent=1))
        part.replace(self.path / _MANIFEST)

    def read(self, name: str) -> Starts:
        """Reads the starts of a recipe.

        Raises:
            FileNotFoundError: where they are not there.
            ValueError: for a file other than the one that the manifest describes.
        """
        entry = self.manifest().get(name)
        if entry is None or not self._file(name).is_file():
            raise FileNotFoundError(f"folder={self.path}: no trained start {name!r} there; {self.remedy}")
        if _digest(self._file(name)) != entry["sha256"]:
            raise ValueError(f"{self._file(name)}: damaged or changed; delete it and {self.remedy}")
        return _loaded(self._file(name), entry["sha256"], json.dumps(entry["net"]), name)

    def made(self, name: str, recipe: Mapping[str, Any]) -> bool:
        """Tests whether the starts of this recipe, and of no other of its name, are there and whole."""
        entry = self.manifest().get(name)
        file = self._file(name)
        return bool(entry and entry["recipe"] == recipe and file.is_file() and _digest(file) == entry["sha256"])

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _loaded(file: Path, digest: str, net: str, name: str) -> Starts:
    """Loads the content of a file, cached by its digest."""
    described: dict[str, Any] = json.loads(net)
    made = _NETS[described.pop("class")]
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in described.items()}
    tensors = load_file(file)
    world = {key.removeprefix("world."): value for key, value in tensors.items() if key != "theta"}
    return Starts(name, made(**fields), tensors["theta"], world)
