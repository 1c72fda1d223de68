"""The page of docs about the suite: its findings in words and tables."""

from __future__ import annotations

from pathlib import Path

from benchmarks.heldout.figures import Findings
from benchmarks.heldout.runs import DECADES, POINTS
from benchmarks.heldout.tasks import TASKS
from benchmarks.suites.schedules import LEARNED, RIVALS
from benchmarks.suites.table import CAP
from metalr.compare.files import write_text
from metalr.compare.report.table import Table
from metalr.compare.report.text import Value

NAMES = {
    "default": "learned",
    "anytime": "learned, horizon unknown",
    "wsd": "warmup-stable-decay",
    "one_cycle": "one-cycle",
    "linear": "linear to zero",
    "prodigy_cosine": "Prodigy with cosine",
    "schedule_free_adamw": "schedule-free AdamW",
    "schedule_free_sgd": "schedule-free SGD",
    "d_adaptation": "D-Adaptation (Adam)",
}
"""Schedules as the page names them, where that is not their own name."""

COUNTS = ("cells_never", "cells_measured")
"""Parts of the names of figures that are numbers of cells."""


def write_page(findings: Findings, path: Path) -> None:
    """Writes the page."""
    text = _PAGE.format(
        command=findings.command,
        points=POINTS,
        cap=f"{CAP:g}",
        decades=f"{DECADES:g}",
        tasks=_tasks().body(),
        summary=summary_table(findings).body(),
        figures="\n".join(figure_lines(findings)),
        kept=_KEPT if findings.by_rate else _NOT_KEPT,
        cells=_cells(findings).body(),
    )
    write_text(path, text)


def summary_table(findings: Findings) -> Table:
    """Makes one row a schedule: its loss over cosine's at its best rate, from three rates."""
    rows: list[list[Value]] = []
    strong: set[tuple[int, int]] = set()
    for name, (best, middle, worst) in findings.summary.items():
        strong |= {(len(rows), column) for column in (1, 2, 3) if name in LEARNED}
        ratios = [middle] * 3 if name in RIVALS else [best, middle, worst]
        rows.append([NAMES.get(name, name), *(f"{ratio:.3f}" for ratio in ratios)])
    return Table("", "", ["", "best rate", "median rate", "worst rate"], rows, strong)


def figure_lines(findings: Findings) -> list[str]:
    """Lists the figures as `name: value`."""
    lines = [f"{name}: {_figure(name, value)}{_interval(findings, name)}" for name, value in findings.figures.items()]
    above = findings.above_initial
    lines.append(f"runs_above_initial_loss: {len(above)} of {findings.learned_runs} learned runs")
    lines += [f"  {r.task}, {r.optimizer}, {r.steps} steps, {r.schedule}, lr {r.rate}, seed {r.seed}" for r in above]
    lines.append(f"runs_done: {findings.done} of {findings.planned}")
    lines.append(f"core_minutes: {findings.core_minutes:.1f}")
    return lines


def _figure(name: str, value: float) -> str:
    return str(int(value)) if any(part in name for part in COUNTS) else f"{value:.3f}"


def _interval(findings: Findings, name: str) -> str:
    low, high = findings.intervals.get(name, (None, None))
    return "" if low is None else f" [{low:.3f}, {high:.3f}]"


def _tasks() -> Table:
    rows: list[list[Value]] = [
        [name, task.title, ", ".join(task.optimizers), ", ".join(map(str, task.horizons))]
        for name, task in TASKS.items()
    ]
    return Table("", "", ["task", "", "optimizers", "steps"], rows)


def _cells(findings: Findings) -> Table:
    names = [name for name in findings.cells[0] if any(row[name] is not None for row in findings.cells)]
    rows: list[list[Value]] = [[_cell(row[name]) for name in names] for row in findings.cells]
    return Table("", "", names, rows)


def _cell(value: float | int | str | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


_KEPT = """Final validation losses, and metrics in the last columns. `heldout.csv` has every run, `heldout.json` the
figures of this page."""

_NOT_KEPT = """Final validation losses, and metrics in the last two columns. `heldout.json` has the figures of this page
as the suite printed them. The runs behind them were not kept: `heldout.csv` has the means over seeds of this table
alone. It has no initial rate, no seed and no curve, no policy, and nothing of linear to zero, warmup-stable-decay,
one-cycle and step. So the ratios of the learned schedules at their median and worst rate with their intervals, those of
the rivals, the wins and the metric gap of `default` can be worked out from it again; the other rows of the first table,
the steps, the metric gap of `anytime`, the runs above their initial loss and the plot cannot."""

_PAGE = """# The held-out suite

Learned schedules beside tuned and untuned ones, on real data. This page, its tables and its plot are written by

```bash
{command}
```

Each schedule is trained in each cell (task, optimizer, horizon) from each initial rate, log-spaced over {decades}
decades about the optimizer's usual one, and with each seed. For a task and a seed, all of them have the same initial
weights, batches and dropout masks. SGD has momentum 0.9, AdamW torch's defaults. The validation loss is that of one
fixed held-out part, at the start and at {points} evenly spaced steps. A loss that is not a number, or above {cap} times
the run's initial one, counts as {cap} times that.

| task | | optimizers | steps |
|---|---|---|---|
{tasks}

## Final validation loss over that of cosine at its best rate

A schedule's loss at a rate is its mean over seeds; best, median and worst are over the initial rates; the figures are
geometric means over the cells. The optimizers in the last rows run at their published defaults, untuned, and are
compared in every cell of the same task and horizon, XGBoost's left out.

The median of an even number of rates is the mean of the two middle losses. A run that diverges enters its rate's mean
as {cap} times its initial loss. Cosine's best rate is chosen by the mean over the same seeds that it is then scored by,
as is every other best: that favours what is tuned, by as much as seeds differ.

{summary}

![Final validation loss over best-tuned cosine's](heldout.png)

## Figures

```
{figures}
```

Steps: the share of the run after which the learned schedule's validation loss first is at most the final one of
cosine (for `anytime`: of a constant rate) at its best rate, 1 where it never is. Metric: accuracy (Adult and XGBoost:
AUC) at the median rate minus the best of the six hand-made schedules at all their rates. Wins: the share of cells in
which the learned schedule at its median rate ends below. Intervals: 95 %, by a percentile bootstrap of the mean log
ratio over the cells.

## Cell by cell

{kept}

{cells}
"""
