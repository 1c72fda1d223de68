"""Runs the suite of boosted trees, or what is missing of it, and reports.

    python -m benchmarks.trees --docs docs

Every run is a cell of `metalr.compare`: its folder below OUT has its record, and a finished one is never done again;
Ctrl-C waits for those under way. How long the missing runs take is measured and printed first.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli

from benchmarks.suites import command
from benchmarks.trees.suite import TreesRun

main = command.entry(TreesRun)

if __name__ == "__main__":
    auto_cli(main)
