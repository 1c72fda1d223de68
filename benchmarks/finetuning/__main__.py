"""Runs the fine-tuning suite, or what is missing of it, and reports.

    python -m benchmarks.finetuning --docs docs

Every run is a cell of `metalr.compare`: its folder below OUT has its record, and a finished one is never done again;
Ctrl-C waits for those under way. Runs of a learned schedule are kept by their policy's fingerprint, so that with a new
policy they alone are run; `--schedules learned --stored docs/finetuning.csv` does so where the folders are gone. How
long the missing runs take is measured and printed first; `--estimate_only true` ends there. By default, every task is
run with one seed at the short horizon, 150 steps, and SST-2 at the long one, 600, as well; `--horizons 150,600` runs
all at both. Prints the table and the figures as `name: value` at the end.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch reads it; workers inherit it

from jsonargparse import auto_cli

from benchmarks.finetuning.suite import FineTuningRun
from benchmarks.suites import command

main = command.entry(FineTuningRun)

if __name__ == "__main__":
    auto_cli(main)
