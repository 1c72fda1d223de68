"""The experiment: a grid of ordinary fits, their metrics, the report.

`python train.py compare --config configs/compare/digits.yaml` runs it; the parts:

- `grid`: workloads, schedules, rates and seeds, and the command of each cell.
- `callback`: what a cell adds to an ordinary fit. `cell`: runs one. `record`: what it leaves.
- `executor`: where cells run. `runner`: which cells run.
- `metrics`: the figures, as functions of numbers. `summary`: those of a grid.
- `analysis`, `verdicts`: the claims, and who won. `axes`, `plots`, `tables`, `report`: the page.
"""

from metalr.compare.callback import CellCallback
from metalr.compare.grid import Cell, Grid, Schedule, Workload

__all__ = ["Cell", "CellCallback", "Grid", "Schedule", "Workload"]
