"""What is kept of a meta-training: how the policy's response changed, and its last runs on fixed tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalr.inspection import store
from metalr.inspection.decimation import Decimation
from metalr.inspection.response import Responses

_KIND = "metalr.meta-history"


@dataclass(frozen=True)
class TaskRuns:
    """Runs of a policy on one fixed task from K initial rates, beside those of the reference schedule.

    Attributes:
        name: of the task.
        rates: initial rates, ascending, (K,).
        steps: at which the rates were taken, from 0, (S,).
        lr: rates of the policy's runs, of the first instance, (K, S).
        evaluation_steps: steps done at the validations, (E,).
        learned: log of validation loss over initial one, mean over instances, (K, E).
        reference: the same of the reference schedule, (K, E).
    """

    name: str
    rates: NDArray[np.float64]
    steps: NDArray[np.int64]
    lr: NDArray[np.float64]
    evaluation_steps: NDArray[np.int64]
    learned: NDArray[np.float64]
    reference: NDArray[np.float64]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True)
class MetaHistory:
    """Responses of the policy at M meta-steps, and its last runs.

    Attributes:
        features: names of the F features.
        grid: values of each, (F, G).
        step: meta-steps, ascending, (M,).
        curves: median response of the increment, as its share of the bound, (M, F, G).
        runs: on fixed tasks, as they were last.
        runs_at: meta-step of these.
    """

    features: tuple[str, ...]
    grid: NDArray[np.float64]
    step: NDArray[np.int64]
    curves: NDArray[np.float64]
    runs: tuple[TaskRuns, ...] = field(default=())
    runs_at: int = 0

    @classmethod
    def start(cls, step: int, found: Responses) -> MetaHistory:
        """From the first responses."""
        return cls(found.features, found.grid, np.array([step], dtype=np.int64), found.curves[None, :, 1])

    def add(self, step: int, found: Responses, decimation: Decimation) -> MetaHistory:
        """With the responses at a later meta-step, thinned."""
        steps = np.append(self.step, step)
        keep = decimation.keep(steps)
        return replace(self, step=steps[keep], curves=np.concatenate((self.curves, found.curves[None, :, 1]))[keep])

    def save(self, path: Path) -> None:
        """Writes the history to a safetensors file."""
        arrays = {"grid": self.grid, "step": self.step, "curves": self.curves}
        arrays |= {f"{i}.{name}": array for i, runs in enumerate(self.runs) for name, array in runs.arrays.items()}
        words = {"features": self.features, "runs": [runs.name for runs in self.runs], "runs_at": self.runs_at}
        store.write(path, _KIND, arrays, words)

    @classmethod
    def load(cls, path: Path) -> MetaHistory:
        """Reads `save`'s file.

        Raises:
            ValueError: where it is damaged or something else.
        """
        arrays, words = store.read(path, _KIND)
        runs = []
        for i, name in enumerate(words["runs"]):
            part = {key.removeprefix(f"{i}."): array for key, array in arrays.items() if key.startswith(f"{i}.")}
            runs.append(TaskRuns(name, **part))
        own = (tuple(words["features"]), arrays["grid"], arrays["step"], arrays["curves"])
        return cls(*own, runs=tuple(runs), runs_at=int(words["runs_at"]))
