"""The numbers of a report as data frames, for CSV and Parquet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from metalr.compare.analysis import Analysis
from metalr.compare.cell import CellRun
from metalr.compare.metrics import Summary
from metalr.compare.record import Record
from metalr.compare.runner import Outcome


def cells_frame(cell_runs: Sequence[CellRun], outcome: Outcome) -> pd.DataFrame:
    """Makes one row a cell: its place in the grid, its status, and what it ended with."""
    rows = []
    for cell_run in cell_runs:
        record = outcome.records.get(cell_run.name)
        status = "finished" if record else "failed" if cell_run.name in outcome.failed else "not run"
        row: dict[str, object] = {"workload": cell_run.workload, "schedule": cell_run.schedule, "rate": cell_run.rate}
        row |= {"seed": cell_run.seed, "status": status, "metric": cell_run.metric}
        if record:
            row |= _figures(record)
        rows.append(row)
    return pd.DataFrame(rows)


def curves_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Makes one row a point of a curve."""
    parts = [
        pd.DataFrame({"step": steps, "value": values}).assign(
            workload=r.workload, schedule=r.schedule, rate=r.rate, seed=r.seed, curve=name
        )
        for r in records
        for name, (steps, values) in r.curves.items()
    ]
    return pd.concat(parts, ignore_index=True)[["workload", "schedule", "rate", "seed", "curve", "step", "value"]]


def summary_frame(analysis: Analysis) -> pd.DataFrame:
    """Makes one row a workload, schedule and figure over seeds."""
    rows = []
    for result in analysis.results:
        for s in result.standings:
            kinds: Mapping[str, Summary] = {"tuned": s.tuned, "median": s.median, "worst": s.worst}
            kinds = {f"{k} {result.workload.metric}": v for k, v in kinds.items()} | {"sensitivity": s.sensitivity}
            for name, found in (kinds | {f"tuned rate, {k}": v for k, v in s.metrics.items()}).items():
                low, high = (found.interval.low, found.interval.high) if found.interval else (math.nan, math.nan)
                rows.append(
                    {"workload": result.workload.name, "schedule": s.schedule, "rate": s.rate, "figure": name}
                    | {"n": found.n, "mean": found.mean, "sd": found.sd, "min": found.low, "max": found.high}
                    | {"interval_low": low, "interval_high": high}
                )
    return pd.DataFrame(rows)


def _figures(record: Record) -> dict[str, object]:
    ends = {"steps": record.steps, "seconds": record.seconds, "first_loss": record.first_loss}
    epochs = record.steps / record.epoch_steps if record.epoch_steps else math.nan
    return {**ends, "epochs": epochs, **record.final, **record.test}
