"""The parts of a decision, from the signals of a training step to the rates of the parameter groups.

Reads in the order of the flow: `signals` -> `features` -> `policy` -> `update_rule` -> `guards` -> `controller`.
It imports torch, NumPy and safetensors, and nothing else of metalr.
"""
