"""The fine-tuning suite: the learned schedule beside tuned ones on real pretrained networks.

One more grid of `metalr.compare`, as the held-out suite is; what the two share is in `benchmarks.suites`.

- `weights`: the pretrained networks, out of installed packages. `data`, `tasks`: what they are fine-tuned on.
- `runs`: the cells. `estimate`: how long they take.
- `figures`: the figures as numbers. `page`, `plot`, `report`: the page of docs.
"""
