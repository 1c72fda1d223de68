"""Runs the suite of boosted trees, or what is missing of it, and reports.

    python -m benchmarks.trees --docs docs

Every run is a cell of `metalr.compare`: its folder below OUT has its record, and a finished one is never done again;
Ctrl-C waits for those under way. How long the missing runs take is measured and printed first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli

from benchmarks.suites import command
from benchmarks.trees.suite import TreesRun


def main(out: Path = Path("results/trees"), **options: Any) -> None:
    """Runs what is missing, and reports what is there.

    Args:
        out: folder of the runs and of compare's report of every cell.
        options: those of `benchmarks.suites.command.main`.
    """
    command.main(TreesRun, out, **options)


if __name__ == "__main__":
    auto_cli(main)
