"""An executor for tests: each cell is run in this process, when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from metalr.compare.cell import CellRun


class InProcess:
    """Runs one cell at a time; Ctrl-C comes after so many.

    Args:
        stop_after: cells; None for no Ctrl-C.
    """

    free = 1

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.done: list[CellRun] = []
        self._ended: list[CellRun] = []

    def launch(self, cell_runs: Sequence[CellRun]) -> None:
        if len(self.done) == self.stop_after:
            raise KeyboardInterrupt
        for cell_run in cell_runs:
            cell_run.run()
            self.done.append(cell_run)
        self._ended += cell_runs

    def ended(self) -> list[tuple[CellRun, bool]]:
        ended, self._ended = self._ended, []
        return [(cell_run, True) for cell_run in ended]

    def stop(self) -> None:
        pass
