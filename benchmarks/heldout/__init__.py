"""The held-out suite: learned schedules beside tuned and untuned ones, on real data.

It is one more grid of `metalr.compare`: `runs` says what its cells are and trains one; compare's runner, records,
executor and report do the rest. What is particular to it:

- `tasks`, `data`, `networks`: what is trained. `schedules`: what sets the rate. `runs`: the cells. What it shares with
  other suites is in `benchmarks.suites`.
- `figures`: the figures as numbers, such as the ratio to cosine at its best rate. `page`, `plot`: the page of docs.
"""
