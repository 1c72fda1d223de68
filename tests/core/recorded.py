"""Runs whose rates are recorded, so that a change of the code's form is seen not to change them.

`python -m tests.core.recorded` writes them anew, for a change of the feature schema or of the shipped policies alone.
They are recorded with how the machine rounds: processors and versions differ in the last bits of a product or of exp.
"""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from metalr import Guards, LRPolicy, MetaLR

RECORD = Path(__file__).with_name("recorded_rates.json")
STEPS, NON_FINITE, DIVERGING = 60, 20, 40

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda groups, as_lr: torch.optim.SGD(groups, lr=as_lr(0.05)),
    "momentum": lambda groups, as_lr: torch.optim.SGD(groups, lr=as_lr(0.05), momentum=0.9, weight_decay=1e-3),
    "nesterov": lambda groups, as_lr: torch.optim.SGD(groups, lr=as_lr(0.05), momentum=0.9, nesterov=True),
    "adamw": lambda groups, as_lr: torch.optim.AdamW(groups, lr=as_lr(1e-3)),
    "rmsprop": lambda groups, as_lr: torch.optim.RMSprop(groups, lr=as_lr(1e-3)),
}
POLICIES = {"default": STEPS, "anytime": None, "boosting": STEPS, "boosting_anytime": None}
PLACES: dict[str, Callable[[float], object]] = {
    "host": float,
    "tensor": lambda lr: torch.tensor(lr, dtype=torch.float64),
}


def rates(optimizer: str, policy: str, place: str) -> list[float]:
    """Of the first of two groups, on a noisy quadratic; a step is not finite, and at last the loss diverges."""
    numbers = torch.arange(12, dtype=torch.float64)
    one, two = nn.Parameter(1.0 + numbers / 8), nn.Parameter(0.5 - numbers / 16)
    as_lr = PLACES[place]
    made = OPTIMIZERS[optimizer]([{"params": [one]}, {"params": [two], "lr": as_lr(0.01)}], as_lr)
    # That policy has not met such a run, and no reference schedule would move the rate in its place.
    guards = Guards(out_of_distribution=policy != "boosting_anytime")
    meta_lr = MetaLR(made, POLICIES[policy], LRPolicy.load(policy), guards=guards)
    found = []
    for t in range(STEPS):
        loss = 0.0
        for index, parameter in enumerate((one, two)):
            offset = torch.sin(3.0 * t + index + numbers)
            curvature = 2.0 ** -(numbers / 3)
            error = parameter.detach() - 0.3 * offset
            parameter.grad = curvature * error
            loss += float((0.5 * curvature * error * error).sum())
        loss *= 1.0 if t < DIVERGING else 3.0 ** (t - DIVERGING)
        meta_lr.step(math.nan if t == NON_FINITE else loss)
        made.step()
        found.append(meta_lr.last_lr[0])
    return found


def all_rates() -> dict[str, list[float]]:
    """By optimizer, policy and place."""
    cases = ((o, p, d) for o in OPTIMIZERS for p in POLICIES for d in PLACES)
    return {"/".join(case): rates(*case) for case in cases}


def rounding() -> str:
    """A digest of the versions and of what a decision is made of: where it is the same, so is every rate."""
    numbers = torch.linspace(0.01, 8.0, 1024, dtype=torch.float64)
    digest = hashlib.sha256(f"torch {torch.__version__}, numpy {np.__version__}".encode())
    for name, of_float in (
        ("exp", math.exp),
        ("log", math.log),
        ("tanh", math.tanh),
        ("arcsinh", math.asinh),
        ("cos", math.cos),
    ):
        digest.update(np.array([of_float(x) for x in numbers.tolist()]).tobytes())
        for row in (numbers, numbers.float()):
            digest.update(getattr(torch, name)(row).numpy().tobytes())
    matrix, vector = numbers.view(32, 32).sin(), numbers[:32].cos()
    digest.update((matrix.numpy() @ vector.numpy()).tobytes())
    for weight, row in ((matrix, vector), (matrix.float(), vector.float())):
        for part in (nn.functional.linear(row[None], weight), torch.linalg.vector_norm(weight), row.dot(weight[0])):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    RECORD.write_text(json.dumps({"rounding": rounding(), "rates": all_rates()}, indent=0) + "\n")
