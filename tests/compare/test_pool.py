"""Workers that stay: one cell after another, each with its log; one that dies takes nothing else along for good."""

import io
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from metalr.compare.cell import LOG, CellRun
from metalr.compare.pool import PoolExecutor
from metalr.compare.record import Record
from metalr.compare.runner import finished, run


@dataclass(frozen=True)
class Short(CellRun):
    """A run of no time at all: it ends well, raises, or ends its process once."""

    out: Path
    number: int
    how: str = "well"
    workload = "w"
    schedule = "s"
    rate = 0.1
    metric = "loss"

    @property
    def seed(self) -> int:
        return self.number

    def fingerprint(self) -> str:
        return f"{self.seed}"

    def command(self) -> list[str]:
        return ["true"]

    def train(self) -> Record:
        print("training in", os.getpid())
        if self.how == "raise":
            raise RuntimeError("no luck")
        mark = self.out / f"died-{self.seed}"
        if self.how == "die once" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        final = {"loss": float(os.environ["OMP_NUM_THREADS"])}
        curves = {"loss": ([0], [1.0])}
        return Record(self.fingerprint(), "w", "s", 0.1, self.seed, 1, None, 0.0, 1.0, final, {}, curves)


def outcome_of(runs, workers):
    return run(runs, finished(runs), PoolExecutor(workers), Console(file=io.StringIO()))


@pytest.mark.slow
def test_cells_share_a_worker_and_one_that_raises_or_dies_fails_by_itself(tmp_path):
    runs = [Short(tmp_path, seed, how) for seed, how in enumerate(["die once", "raise", "well", "well"])]
    outcome = outcome_of(runs, 1)
    assert list(outcome.records) == [each.name for each in runs[2:]]
    assert list(outcome.failed) == [each.name for each in runs[:2]]
    assert "RuntimeError: no luck" in outcome.failed[runs[1].name]
    assert {record.final["loss"] for record in outcome.records.values()} == {1.0}
    logs = [(each.folder / LOG).read_text().splitlines()[0] for each in runs]
    assert len(set(logs)) == 2  # the second process took all that came after the first one's end
    again = outcome_of(runs, 1)
    assert list(again.records) == [runs[0].name, *(each.name for each in runs[2:])]


def test_no_worker_is_refused():
    with pytest.raises(ValueError, match="workers=0: give 1 or more"):
        PoolExecutor(0)
