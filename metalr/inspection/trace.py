"""The decisions of a run that were kept, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metalr.core.guards import GUARDS
from metalr.inspection import store

_KIND = "metalr.trace"


class Mark(NamedTuple):
    """Something that happened at a step: a threshold that was reached."""

    label: str
    step: int


@dataclass(frozen=True)
class Trace:
    """N decisions of one optimizer's run, ascending in step; F features are read by the policy.

    Attributes:
        features: names of the features.
        step: optimizer step, from 0, (N,).
        time: seconds since the epoch, (N,).
        lr: rate of the first group, (N,).
        reference: rate of its reference schedule, (N,).
        loss: fast average of the training loss, (N,).
        log_multiplier: s, nats, (N,).
        change: of s at this step, after the guards, nats, (N,).
        bound: largest change of s that the law allows at this step, nats, (N,).
        constant: part of the law's change that no feature explains, nats, (N,).
        values: of the features, in [-3, 3], (N, F).
        nats: what each feature added to the law's change, (N, F).
        counts: actions of each guard so far, (N, len(GUARDS)).
        guards: names of the guards.
        marks: thresholds that the run reached.
    """

    features: tuple[str, ...]
    step: NDArray[np.int64]
    time: NDArray[np.float64]
    lr: NDArray[np.float64]
    reference: NDArray[np.float64]
    loss: NDArray[np.float64]
    log_multiplier: NDArray[np.float64]
    change: NDArray[np.float64]
    bound: NDArray[np.float64]
    constant: NDArray[np.float64]
    values: NDArray[np.float64]
    nats: NDArray[np.float64]
    counts: NDArray[np.int64]
    guards: tuple[str, ...] = GUARDS
    marks: tuple[Mark, ...] = ()

    @classmethod
    def empty(cls, features: Sequence[str]) -> Trace:
        """Of a run that has not started."""
        wide = np.zeros((0, len(features)))
        none, steps = np.zeros(0), np.zeros(0, dtype=np.int64)
        counts = np.zeros((0, len(GUARDS)), dtype=np.int64)
        return cls(tuple(features), steps, none, none, none, none, none, none, none, none, wide, wide, counts)

    def __len__(self) -> int:
        return len(self.step)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in own.items() if isinstance(value, np.ndarray)}

    def joined(self, more: Trace) -> Trace:
        """With the decisions that come after."""
        later = more.arrays
        arrays: Any = {name: np.concatenate((array, later[name])) for name, array in self.arrays.items()}
        return replace(self, **arrays)

    def select(self, rows: NDArray[Any] | slice) -> Trace:
        """Some of the decisions."""
        arrays: Any = {name: array[rows] for name, array in self.arrays.items()}
        return replace(self, **arrays)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each feature in all that moved s, sum of |nats| over the bound, (F,); they sum to 1."""
        sizes = np.abs(self.nats / self.bound[:, None]).sum(0)
        total = sizes.sum()
        shares: NDArray[np.float64] = sizes / total if total > 0 else sizes
        return shares

    def save(self, path: Path) -> None:
        """Writes the trace to a safetensors file."""
        words = {"features": self.features, "guards": self.guards, "marks": self.marks}
        store.write(path, _KIND, self.arrays, words)

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Reads `save`'s file.

        Raises:
            ValueError: where it is damaged or something else.
        """
        arrays, words = store.read(path, _KIND)
        marks = tuple(Mark(str(label), int(step)) for label, step in words["marks"])
        try:
            return cls(features=tuple(words["features"]), guards=tuple(words["guards"]), marks=marks, **arrays)
        except TypeError as error:
            raise ValueError(f"{path} was written by another version of metalr ({error})") from error
