"""What the suites share, `benchmarks.heldout`, `benchmarks.final` and `benchmarks.finetuning`: a suite is its tasks.

Each is a grid of cells of `metalr.compare` in plain loops. By their order:

- `suite`: what a suite is. `problem`, `boosting`: what is trained. `schedules`: the names of what sets the rate.
- `training`: what sets the rate, rivals with optimizers of their own. `finder`: Lightning's rate finder.
- `runs`: the training of one run. `plan`: the list of all. `estimate`: how long they take.
- `table`: runs by cell and schedule, and the file of all runs. `estimates`, `figures`: figures with their intervals.
- `page`, `plot`, `report`: the page of docs, and compare's report of every cell. `command`: the command line.
"""
