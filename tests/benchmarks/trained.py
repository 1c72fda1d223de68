"""Training one run of a suite in this process."""

from benchmarks.suites.runs import SuiteRun
from metalr.compare.record import Record


def trained(run: SuiteRun) -> Record:
    """Trains a run and reads its record."""
    run.run()
    record = Record.load(run.folder)
    assert record is not None
    return record
