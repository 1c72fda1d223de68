"""Runs the final suite, or what is missing of it, and reports.

    python -m benchmarks.final --docs docs

It is run once for each shipped policy, after that is chosen: nothing is chosen by it. Every run is a cell of
`metalr.compare`: its folder below OUT has its record, and a finished one is never done again; Ctrl-C waits for those
under way. Runs of a learned schedule are kept by their policy's fingerprint, so that with a new policy they alone are
run; `--schedules learned --stored docs/final.csv` does so where the folders are gone. How long the missing runs take is
measured and printed first. Prints the table and the figures as `name: value` at the end.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli

from benchmarks.final.suite import FinalRun
from benchmarks.suites import command

main = command.entry(FinalRun)

if __name__ == "__main__":
    auto_cli(main)
