"""The interface of an experiment that an analysis uses, whatever trains its cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Objective(Protocol):
    """Defines the objective on a workload; `grid.Workload` is one."""

    @property
    def name(self) -> str:
        """Names the workload, and files of the report."""

    @property
    def metric(self) -> str:
        """Names the final figure that decides."""

    @property
    def mode(self) -> str:
        """Whether more of it is better, "max", or less, "min"."""

    @property
    def loss(self) -> str:
        """Names the loss of the curves and of the sensitivity to the rate."""

    @property
    def threshold(self) -> float | None:
        """Value of the metric to reach; None for the best-tuned baseline's final value."""


class Design(Protocol):
    """Names the axes of an experiment; `grid.Grid` is one."""

    @property
    def name(self) -> str:
        """Names the experiment."""

    @property
    def workloads(self) -> Sequence[Objective]:
        """Lists what is trained."""

    @property
    def schedule_names(self) -> list[str]:
        """Lists the schedules, in the order of the report."""

    @property
    def candidate(self) -> str:
        """Names the schedule that the others, the baselines, are compared with."""
