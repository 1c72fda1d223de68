"""Results on disk: a line of JSON a run, added when it ends, so that an interrupted suite goes on where it was."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.heldout.runs import Result, Run


class Store:
    """A file of results that only grows.

    Args:
        path: of the file; its folder is made.

    Raises:
        ValueError: for a line that is no result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[Run, Result] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._read()

    def _read(self) -> None:
        text = self.path.read_text() if self.path.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # killed while it wrote a line: that run is done again
            self.path.write_text(whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                run, result = _parse(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{self.path}, line {number}: no result of the suite ({error}); delete it") from error
            self.results[run] = result

    def add(self, run: Run, result: Result) -> None:
        """Keeps a result."""
        numbers = {"curve": [_finite(x) for x in result.curve], "metric": result.metric, "seconds": result.seconds}
        with self.path.open("a") as file:
            file.write(json.dumps(asdict(run) | numbers) + "\n")
        self.results[run] = result


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _parse(row: dict[str, Any]) -> tuple[Run, Result]:
    curve = tuple(math.nan if x is None else float(x) for x in row.pop("curve"))
    result = Result(curve, float(row.pop("metric")), float(row.pop("seconds")))
    return Run(**row), result
