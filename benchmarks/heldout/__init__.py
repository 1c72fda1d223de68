"""The development suite: learned schedules beside tuned and untuned ones, on real data.

It was held out once, and has taught since: `suite` says what. `benchmarks.final` has other data and networks.

- `tasks`, `data`, `networks`: what is trained. `suite`: what is run. All else is in `benchmarks.suites`.
"""
