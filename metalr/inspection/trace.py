"""The recorded decisions of a run, as arrays."""

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
_WORDS = ("features", "guards", "reached")


class Reached(NamedTuple):
    """Names an event at an optimizer step: a threshold of a metric that was reached.

    Attributes:
        label: metric and threshold, such as "val/loss 0.5".
        step: optimizer steps done by then.
    """

    label: str
    step: int


@dataclass(frozen=True)
class Trace:
    """Holds N decisions of one optimizer's run, ascending in step, by a policy that reads F features.

    The contributions and the constant sum to the change of the update rule, before the guards.

    Attributes:
        features: names of the features.
        step: optimizer step, from 0, (N,).
        time: seconds since the epoch, (N,).
        lr: rate of the first group, (N,).
        reference: rate of its reference schedule, (N,).
        loss: fast average of the training loss, (N,).
        log_multiplier: s, log of the rate over its reference, nats, (N,).
        change: of s at this step, after the guards, nats, (N,).
        bound: largest change that the update rule allows at this step, nats, (N,).
        constant: part of the change that no feature explains (the policy's biases), nats, (N,).
        values: of the features, in [-3, 3], (N, F).
        contributions: part of the change that each feature explains, nats, (N, F).
        counts: interventions of each guard so far, (N, len(GUARDS)).
        guards: names of the guards.
        reached: thresholds that the run reached.
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
    contributions: NDArray[np.float64]
    counts: NDArray[np.int64]
    guards: tuple[str, ...] = GUARDS
    reached: tuple[Reached, ...] = ()

    @classmethod
    def empty(cls, features: Sequence[str]) -> Trace:
        """Returns the trace of a run that has not started."""
        wide = np.zeros((0, len(features)))
        none, steps = np.zeros(0), np.zeros(0, dtype=np.int64)
        counts = np.zeros((0, len(GUARDS)), dtype=np.int64)
        return cls(
            features=tuple(features),
            step=steps,
            time=none,
            lr=none,
            reference=none,
            loss=none,
            log_multiplier=none,
            change=none,
            bound=none,
            constant=none,
            values=wide,
            contributions=wide,
            counts=counts,
        )

    def __len__(self) -> int:
        return len(self.step)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        return {name: getattr(self, name) for name in self.array_names()}

    @classmethod
    def array_names(cls) -> list[str]:
        """Lists the names of the arrays."""
        return [field.name for field in fields(cls) if field.name not in _WORDS]

    def joined(self, more: Trace) -> Trace:
        """Returns the trace with later decisions appended."""
        later = more.arrays
        arrays: Any = {name: np.concatenate((array, later[name])) for name, array in self.arrays.items()}
        return replace(self, **arrays)

    def select(self, rows: NDArray[Any] | slice) -> Trace:
        """Returns some of the decisions, by index, mask or slice."""
        arrays: Any = {name: array[rows] for name, array in self.arrays.items()}
        return replace(self, **arrays)

    @property
    def shares(self) -> NDArray[np.float64]:
        """Share of each feature in the sum of |contribution| over the bound, (F,); they sum to 1, or are all 0."""
        sizes = np.abs(self.contributions / self.bound[:, None]).sum(0)
        total = sizes.sum()
        shares: NDArray[np.float64] = sizes / total if total > 0 else sizes
        return shares

    def save(self, path: Path) -> None:
        """Writes the trace to a safetensors file."""
        words = {name: getattr(self, name) for name in _WORDS}
        store.write(path, _KIND, self.arrays, words)

    @classmethod
    def load(cls, path: Path) -> Trace:
        """Reads the file that `save` wrote.

        Raises:
            ValueError: for a file that is damaged, of another kind, or of another version of metalr.
        """
        arrays, words = store.read(path, _KIND)
        store.check_names([*arrays, *words], [*cls.array_names(), *_WORDS], path)
        reached = tuple(Reached(str(label), int(step)) for label, step in words["reached"])
        return cls(features=tuple(words["features"]), guards=tuple(words["guards"]), reached=reached, **arrays)
