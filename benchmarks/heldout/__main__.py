"""Runs the development suite, or what is missing of it, and reports.

    python -m benchmarks.heldout --docs docs

Every run is a cell of `metalr.compare`: its folder below OUT has its record, and a finished one is never done again;
Ctrl-C waits for those under way. Runs of a learned schedule are kept by their policy's fingerprint, so that with a new
policy they alone are run; `--schedules learned --stored docs/heldout.csv` does so where the folders are gone. How long
the missing runs take is measured and printed first. Prints the table and the figures as `name: value` at the end.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli

from benchmarks.heldout.suite import HeldOutRun
from benchmarks.suites import command

main = command.entry(HeldOutRun)

if __name__ == "__main__":
    auto_cli(main)
