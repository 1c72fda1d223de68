"""The page of docs about the suite: its findings in words and tables."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.finetuning.data import MAX_TOKENS, VALIDATION
from benchmarks.finetuning.figures import MARGIN, Findings
from benchmarks.finetuning.runs import DECADES, LEARNED, ORDER, OWN, POINTS
from benchmarks.finetuning.tasks import TASKS
from benchmarks.finetuning.weights import MINILM, MOBILENET
from benchmarks.suites.schedules import WARM_UP
from benchmarks.suites.table import CAP
from metalr.compare.files import write_text
from metalr.compare.report.table import Table
from metalr.compare.report.text import Value

NAMES = {
    "default": "learned",
    "linear_warmup": "linear with warm-up",
    "prodigy_cosine": "Prodigy with cosine",
    "schedule_free_adamw": "schedule-free AdamW",
}
"""Schedules as the page names them, where that is not their own name."""


def write_page(findings: Findings, path: Path) -> None:
    """Writes the page."""
    text = _PAGE.format(
        command=findings.command,
        points=POINTS,
        decades=f"{DECADES:g}",
        cap=f"{CAP:g}",
        warm_up=f"{100 * WARM_UP:g}",
        rows=VALIDATION,
        tokens=MAX_TOKENS,
        margin=f"{100 * MARGIN:g}",
        minilm=MINILM,
        mobilenet=MOBILENET,
        seeds="one seed" if findings.seeds == 1 else f"{findings.seeds} seeds",
        tasks=_tasks(findings).body(),
        standings=standings_table(findings).body(),
        figures="\n".join(figure_lines(findings)),
        cells=_cells(findings).body(),
    )
    write_text(path, text)


def standings_table(findings: Findings) -> Table:
    """Makes one row a cell: the learned schedule beside the best-tuned run."""
    rows: list[list[Value]] = [
        [
            f"{cell.task}, {cell.optimizer}, {cell.steps}",
            f"{each.loss:.3f} ({NAMES.get(each.baseline, each.baseline)}, {each.rate:.3g})",
            f"{each.median:.3f}",
            f"{each.worst:.3f}",
            f"{each.metric:.3f}",
            f"{each.learned_metric:.3f}",
        ]
        for cell, each in findings.standings.items()
    ]
    header = ["", "best-tuned loss", "median rate", "worst rate", "best-tuned accuracy", "accuracy, median rate"]
    return Table("", "", header, rows)


def figure_lines(findings: Findings) -> list[str]:
    """Lists the figures as `name: value`."""
    lines = [f"{name}: {value:.3f}" for name, value in findings.figures().items()]
    lines += [f"runs_at_chance_{name}: {count} of {runs}" for name, (count, runs) in findings.at_chance.items()]
    return [
        *lines,
        f"runs_done: {findings.done} of {findings.planned}",
        f"core_minutes: {findings.core_minutes:.1f}",
    ]


def _tasks(findings: Findings) -> Table:
    cells = {name: [cell for cell in findings.table if cell.task == name] for name in TASKS}
    rows: list[list[Value]] = [
        [
            name,
            TASKS[name].title,
            ", ".join(dict.fromkeys(cell.optimizer for cell in each)),
            ", ".join(str(steps) for steps in dict.fromkeys(cell.steps for cell in each)),
        ]
        for name, each in cells.items()
        if each
    ]
    return Table("", "", ["task", "", "optimizers", "steps"], rows)


def _cells(findings: Findings) -> Table:
    """Makes one row a schedule and cell: its final losses by initial rate."""
    rows: list[list[Value]] = []
    for cell, row in findings.table.items():
        place = f"{cell.task}, {cell.optimizer}, {cell.steps}"
        for name in (name for name in ORDER if name in row):
            own = name in OWN
            losses = ", ".join(
                f"{loss:.3f}" if own else f"{rate:.0e}: {loss:.3f}"
                for rate, loss in zip([0.0] if own else findings.rates[cell], row[name].finals, strict=True)
            )
            rows.append([place, NAMES.get(name, name), losses, f"{median(row[name].metrics):.3f}"])
    strong = {(i, 1) for i, line in enumerate(rows) if line[1] == NAMES[LEARNED]}
    return Table("", "", ["", "schedule", "final validation loss by initial rate", "median accuracy"], rows, strong)


_PAGE = """# Fine-tuning pretrained networks

The learned schedule beside tuned and untuned ones, from real pretrained weights. This page, its tables and its plot are
written by

```bash
{command}
```

from its runs, which `finetuning.csv` has, a row each; `--source finetuning.csv` writes the page from these again. The
weights are those in the packages {minilm} (all-MiniLM-L6-v2, six layers) and {mobilenet} (MobileNetV2, ImageNet);
each network has a fresh head.

{tasks}

Sentences are cut at {tokens} tokens. AdamW has torch's defaults, with a weight decay of 0.01; SGD has momentum 0.9.
Each schedule is run from each initial rate, log-spaced over {decades} decades, with {seeds}; for a task and a seed, all
of them have the same weights, batches and dropout masks. Warm-up takes {warm_up} % of the steps. The validation loss is
that of {rows} fixed rows, at the start and at {points} evenly spaced steps. A loss that is not a number, or above {cap}
times the run's initial one, counts as {cap} times that.

## Over the best-tuned schedule

The best-tuned run of a cell has the lowest final validation loss of linear with warm-up and cosine, from all initial
rates; it is chosen by the loss that it is then scored by, which favours it. The learned schedule's final loss is
given over that, from its median and its worst initial rate.

{standings}

![Final validation loss by initial rate](finetuning.png)

## Figures

```
{figures}
```

Over all cells: geometric means of the ratios, and the accuracy at the median rate minus that of the best-tuned run. A
run is at chance where its accuracy is at most {margin} points above that of always answering with the most frequent
class.

## Cell by cell

Prodigy and schedule-free AdamW run at their published defaults, from one rate.

{cells}
"""
