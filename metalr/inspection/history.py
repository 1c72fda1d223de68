"""The record of a meta-training: how the policy's response changed, and its latest runs on fixed tasks."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
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
    """Holds runs of a policy on one fixed task from K initial rates, beside runs of the reference schedule.

    Attributes:
        name: of the task.
        rates: initial rates, ascending, (K,).
        steps: inner steps at which `lr` was sampled, from 0, (S,).
        lr: applied rates of the policy's runs on the task's first instance, (K, S).
        evaluation_steps: inner steps done at each validation, (E,).
        learned: log(validation loss / initial one) of the policy's runs, mean over instances, nats, (K, E).
        reference: the same of the reference schedule's runs, nats, (K, E).
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
        return {name: getattr(self, name) for name in self.array_names()}

    @classmethod
    def array_names(cls) -> list[str]:
        """Lists the names of the arrays."""
        return [field.name for field in fields(cls) if field.name != "name"]


@dataclass(frozen=True)
class MetaHistory:
    """Holds the responses of a policy at M meta-steps, and its latest runs on fixed tasks.

    Attributes:
        features: names of the F features.
        grid: values of each, (F, G).
        step: meta-steps, ascending, (M,).
        curves: median over the states of the change as a share of its bound, in [-1, 1], (M, F, G).
        runs: the latest on each fixed task.
        runs_at: meta-step at which `runs` were made.
    """

    features: tuple[str, ...]
    grid: NDArray[np.float64]
    step: NDArray[np.int64]
    curves: NDArray[np.float64]
    runs: tuple[TaskRuns, ...] = field(default=())
    runs_at: int = 0

    @classmethod
    def start(cls, step: int, found: Responses) -> MetaHistory:
        """Returns a history of the first responses."""
        return cls(found.features, found.grid, np.array([step], dtype=np.int64), found.curves[None, :, 1])

    def add(self, step: int, found: Responses, decimation: Decimation) -> MetaHistory:
        """Returns the history with the responses at a later meta-step, decimated."""
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
        """Reads the file that `save` wrote.

        Raises:
            ValueError: for a file that is damaged, of another kind, or of another version of metalr.
        """
        arrays, words = store.read(path, _KIND)
        runs = []
        for i, name in enumerate(words["runs"]):
            part = {key.removeprefix(f"{i}."): array for key, array in arrays.items() if key.startswith(f"{i}.")}
            store.check_names(part, TaskRuns.array_names(), path)
            runs.append(TaskRuns(name, **part))
        own = (tuple(words["features"]), arrays["grid"], arrays["step"], arrays["curves"])
        return cls(*own, runs=tuple(runs), runs_at=int(words["runs_at"]))
