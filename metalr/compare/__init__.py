"""Compare schedules: a grid of ordinary fits, their metrics, and the report.

A schedule to compare is a YAML of `configs/schedule`; a plot or table of the page is in `report/`. By their order:

- `grid`: workloads, schedules, rates and seeds, and the command of each cell. `design`: what an analysis needs of it.
- `cell`: a cell to be run, whatever trains it. `fit`: one that the train script's `fit` trains; `callback`: what it
  adds to that fit. `record`: what a finished cell leaves. `shell`: commands as one types them.
- `runner`: which cells run. `executor`, `pool`: where. `command`: the subcommand `compare`.
- `metrics`: figures as functions of numbers. `summary`, `analysis`: those of a grid, and its claims, as values.
- `report/`: the same as text: tables, verdicts, plots, the page.

It may import `metalr.core`, `metalr.lightning` and `metalr.plotting`. Other suites, such as `benchmarks/heldout`, give
the runner cells of their own kind.
"""

from metalr.compare.callback import CellCallback
from metalr.compare.grid import Cell, Grid, Schedule, Workload

__all__ = ["Cell", "CellCallback", "Grid", "Schedule", "Workload"]
