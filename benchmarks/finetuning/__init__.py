"""The fine-tuning suite: the learned schedule beside tuned ones on real pretrained networks.

- `weights`: the pretrained networks, out of installed packages. `data`, `tasks`: what they are fine-tuned on.
- `suite`: what is run. All else is in `benchmarks.suites`.
"""
