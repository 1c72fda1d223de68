"""The final suite: data and networks that nothing was developed on, run once for each shipped policy.

- `data`, `networks`, `tasks`: what is trained. `suite`: what is run. All else is in `benchmarks.suites`.
"""
