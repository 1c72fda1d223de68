"""The suite's data as tensors, loaded once a process: scikit-learn's tables, in numbers (N, F)."""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_breast_cancer

from benchmarks.final import data as final
from benchmarks.heldout import data as development
from benchmarks.suites.problem import Data, Split


@cache
def cancer(root: str | None) -> Data:
    """Reads Wisconsin's breast cancers: 30 numbers, and whether it is benign; 426 and 143 rows."""
    features, labels = (torch.tensor(each, dtype=torch.float32) for each in load_breast_cancer(return_X_y=True))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    rows = Split((features,), labels)
    return Data(rows.rows(order[143:]), rows.rows(order[:143]))


def digits(root: str | None) -> Data:
    """Reads scikit-learn's digits as 64 numbers; 1,077 and 360 rows."""
    parts = development.digits(root)
    return Data(*(Split((part.inputs[0].flatten(1),), part.labels) for part in parts))


def diabetes(root: str | None) -> Data:
    """Reads ten columns and the disease's progress, standardised; 332 and 110 rows."""
    return final.diabetes(root)
