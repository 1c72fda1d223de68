"""What a decision is made of, from the signals of a training step to the rate of its parameter groups.

Reads in the order of the flow: `signals` -> `features` -> `policy` -> `update_rule` -> `guards` -> `controller`.
It imports torch, NumPy and safetensors, and nothing else of metalr.
"""
