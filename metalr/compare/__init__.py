"""Compare schedules: a grid of ordinary fits (`grid`, `fit`, `callback`), their runner, metrics and `report/`.

`command` is the subcommand `compare`; a schedule to compare is a YAML of `configs/schedule`. Other suites, such as
`benchmarks/heldout`, give the runner cells of their own kind. It may import `metalr.core`, `metalr.lightning` and
`metalr.plotting`.
"""

from metalr.compare.callback import CellCallback
from metalr.compare.grid import Cell, Grid, Schedule, Workload

__all__ = ["Cell", "CellCallback", "Grid", "Schedule", "Workload"]
