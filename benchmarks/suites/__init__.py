"""What the suites share, `benchmarks.heldout` and `benchmarks.finetuning`: grids of `metalr.compare` in plain loops.

- `problem`: what is trained. `schedules`: what sets the rate, rivals with optimizers of their own.
- `runs`: the training of one run. `table`: runs by cell and schedule, and the file of all runs.
- `report`: what is missing is run; compare's report of every cell.
"""
