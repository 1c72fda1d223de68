"""Options of running a grid, which do not change its figures."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """Sets how a grid is run.

    Args:
        out: folder of the cells and the report; None for `logs/compare/<name of the grid>`. Where it has finished
            cells of the same grid, they are not run again; half ones go on.
        workers: cells at a time; None for one a device, or where there is none, one a core.
        threads: of each cell; None for an equal share of the cores.
        keep_checkpoints: whether the checkpoints of finished cells stay.
        report_only: whether to run nothing, and to report on the cells that are finished.
        only: schedules whose cells are run now; the others' are left as they are. None given: all.
        redo_changed: whether a cell whose command, config or policy has changed is deleted and run again; it is
            refused otherwise.
        preload: modules that the cells import late, to be imported once before they are forked.
        script: the train script whose `fit` the cells are; None for the one that runs.
    """

    out: str | None = None
    workers: int | None = None
    threads: int | None = None
    keep_checkpoints: bool = False
    report_only: bool = False
    only: list[str] = field(default_factory=list)
    redo_changed: bool = False
    preload: list[str] = field(default_factory=list)
    script: str | None = None
