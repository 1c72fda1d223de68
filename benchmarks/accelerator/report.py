"""The file of one part: written anew with each measurement, so that a run that is cut loses what would have come."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """Holds what every part needs.

    Attributes:
        device: to measure on.
        bundle: folder of `make accelerator-bundle`.
        out: folder of what is measured.
        smoke: reduced, to try the script; such figures mean nothing.
        seconds: for the part; it begins nothing new after that.
    """

    device: torch.device
    bundle: Path
    out: Path
    smoke: bool
    seconds: float
    _start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds of the part's time that are left."""
        return self.seconds - (time.monotonic() - self._start)


class Report:
    """Collects a part's rows; goes on with those that the same device has measured before.

    Args:
        part: its name.
        setting: of the run.
    """

    def __init__(self, part: str, setting: Setting) -> None:
        self._path = setting.out / f"{part}.json"
        self._content: dict[str, Any] = {
            "part": part,
            "device": device_name(setting.device),
            "torch": torch.__version__,
            "smoke": setting.smoke,
            "rows": [],
        }
        if self._path.is_file():
            earlier = json.loads(self._path.read_text())
            if {**earlier, "rows": []} == self._content:
                self._content = earlier

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What has been measured, oldest first."""
        return list(self._content["rows"])

    def has(self, **key: Any) -> bool:
        """Tests whether a row with these entries is there."""
        return any(key.items() <= row.items() for row in self._content["rows"])

    def add(self, **row: Any) -> None:
        """Adds a row, prints it and writes the file."""
        self._content["rows"].append(row)
        print(json.dumps(row), flush=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(self._content, indent=1) + "\n")
        new.replace(self._path)


def device_name(device: torch.device) -> str:
    """Names a device as its maker does."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def wait(device: torch.device) -> None:
    """Waits until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
