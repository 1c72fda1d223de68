"""The page of docs about a suite: its findings in words and tables."""

from __future__ import annotations

from pathlib import Path

from benchmarks.suites.estimates import Estimate
from benchmarks.suites.figures import BASELINES, MARGIN, PICKS, Findings
from benchmarks.suites.finder import BATCHES
from benchmarks.suites.schedules import LEARNED, RIVALS, TITLES, YARDSTICK
from benchmarks.suites.suite import Suite
from benchmarks.suites.table import CAP
from metalr.compare.files import write_text
from metalr.compare.report.table import Table
from metalr.compare.report.text import Value


def write_page(findings: Findings, suite: Suite, path: Path) -> None:
    """Writes the page."""
    text = _PAGE.format(
        title=suite.title,
        about=suite.about,
        name=suite.name,
        points=suite.points,
        cap=f"{CAP:g}",
        decades=f"{suite.decades:g}",
        half=f"{suite.decades / 2:g}",
        rates=findings.rates,
        seeds="one seed" if findings.seeds == 1 else f"{findings.seeds} seeds",
        yardstick=TITLES[YARDSTICK],
        margin=f"{100 * MARGIN:g}",
        batches=BATCHES,
        found=_found(findings),
        tasks=_tasks(findings, suite).body(),
        splits="\n\n".join(
            f"### {TITLES[name].capitalize()}\n\n{split_table(findings, name).body()}" for name in suite.learned
        ),
        summary=summary_table(findings).body(),
        figures="\n".join(figure_lines(findings)),
        cells=_cells(findings).body(),
    )
    write_text(path, text)


def split_table(findings: Findings, learned: str) -> Table:
    """Makes one row a part of the cells: the learned schedule's final loss over its baselines'."""
    columns = [(which, baseline) for baseline in BASELINES[learned] for which in ("median", "worst")]
    names = [f"{learned}_{which}_over_best_{baseline}" for which, baseline in columns]
    rows: list[list[Value]] = [
        [part, str(max(each.cells for each in found)), *(ranged(figures.get(name)) for name in names)]
        for part, figures in findings.splits.items()
        if (found := [figures[name] for name in names if name in figures])
    ]
    header = [f"{which} rate over best {TITLES[baseline]}" for which, baseline in columns]
    return Table("", "", ["", "cells", *header], rows)


def summary_table(findings: Findings) -> Table:
    """Makes one row a schedule: its loss over the yardstick's at its best rate, from three rates."""
    rows: list[list[Value]] = []
    strong: set[tuple[int, int]] = set()
    for name, each in findings.summary.items():
        strong |= {(len(rows), column) for column in (1, 2, 3) if name in LEARNED}
        where = f", in {RIVALS[name].base} cells" if name in RIVALS else ""
        rows.append([TITLES[name] + where, *(ranged(each.get(which)) for which in PICKS), str(each["best"].cells)])
    return Table("", "", ["", "best rate", "median rate", "worst rate", "cells"], rows, strong)


def figure_lines(findings: Findings) -> list[str]:
    """Lists the figures that are in no table as `name: value`."""
    lines = [f"{name}: {ranged(each)} of {each.cells} cells" for name, each in findings.figures.items()]
    learned = sum(findings.at_chance.get(name, (0, 0))[1] for name in LEARNED)
    lines.append(f"runs_above_initial_loss: {len(findings.above_initial)} of {learned} learned runs")
    lines += [
        f"  {r.task}, {r.optimizer}, {r.steps} steps, {r.schedule}, lr {r.rate}, seed {r.seed}"
        for r in findings.above_initial
    ]
    lines += [f"runs_at_chance_{name}: {count} of {runs}" for name, (count, runs) in findings.at_chance.items()]
    return [*lines, f"runs: {findings.runs}", f"core_minutes: {findings.core_minutes:.1f}"]


def ranged(each: Estimate | None) -> str:
    """Writes an estimate with its interval; nothing for None."""
    if each is None:
        return ""
    return f"{each.value:.3f}" + ("" if each.low is None else f" ({each.low:.3f} to {each.high:.3f})")


def _found(findings: Findings) -> str:
    if findings.found_rates is None:
        return ""
    low, high, far_below = findings.found_rates
    rates = f"it chose rates from {low:.1e} to {high:.1e}, in {100 * far_below:.0f} % of its runs below a hundredth"
    return f"; at\nLightning's defaults {rates}\nof the usual one, which nobody would take who looks at its plot"


def _tasks(findings: Findings, suite: Suite) -> Table:
    rows: list[list[Value]] = []
    for name, task in suite.tasks.items():
        cells = [row for row in findings.cells if row["task"] == name]
        optimizers, steps = (", ".join(dict.fromkeys(str(row[key]) for row in cells)) for key in ("optimizer", "steps"))
        if cells:
            rows.append([name, task.title, optimizers, steps, *task.new])
    return Table("", "", ["task", "", "optimizers", "steps", "data", "network", "optimizer", "horizon"], rows)


def _cells(findings: Findings) -> Table:
    names = [name for name in findings.cells[0] if any(row[name] is not None for row in findings.cells)]
    rows: list[list[Value]] = [[_cell(row[name]) for name in names] for row in findings.cells]
    return Table("", "", names, rows)


def _cell(value: float | int | str | None) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


_PAGE = """# {title}

{about}

This page, its figures (`{name}.json`) and its plot are written by

```bash
python -m benchmarks.{name} --docs docs
```

which runs what is missing, and from the runs that are stored, a row each in `{name}.csv`, by

```bash
python -m benchmarks.{name} --source docs/{name}.csv --docs docs
```

Each schedule is trained in each cell (task, optimizer, horizon) from each of {rates} initial rates, log-spaced over
{decades} decades, that is {half} on either side of the optimizer's usual one, and with {seeds}. Nothing is measured of
rates that are further off. For a task and a seed, all runs have the same initial weights, batches and dropout masks.
SGD has momentum 0.9, AdamW torch's defaults. The validation loss is that of one fixed held-out part, at the start and
at {points} evenly spaced steps.

The last columns say what of a task the meta-training of the shipped policies has not had: its data, its network, its
optimizer and its horizon.

{tasks}

## The learned schedules over the best-tuned ones

Final validation loss over that of another schedule at the best of its rates, geometric mean over cells, with its 95 %
interval: Student's t of the log ratios, paired by cell. It is an interval for other cells of these kinds; cells of one
task share their data and are not independent, so that it is rather too narrow; in the first row a task's cells are one.

{splits}

A schedule's loss at a rate is its mean over seeds. The *median* of an even number of rates is the mean of the two
middle losses. A run whose loss is not a number, or above {cap} times its initial one, enters its rate's mean as {cap}
times that. The best rate of a schedule is chosen by the mean over the same seeds and the same held-out rows that it is
then scored by, which favours whatever is tuned, by as much as seeds differ; a reduction on plateau reads these rows,
too. The learned schedules are given at their median and worst rate, where nothing is chosen.

## Every schedule over the yardstick

The yardstick is {yardstick}, at its best rate in each cell; boosted trees are left out. An
optimizer of its own is held against what its base does, in the cells of that. The rate finder trains on {batches}
batches before the run, which are not counted{found}.
A schedule-free optimizer that diverges at all of its three rates enters as {cap} times the initial loss.

{summary}

![Final validation loss over the yardstick's]({name}.png)

## Figures

```
{figures}
```

Steps, metrics and wins are those of the cells of networks. Steps: the share of the run after which the learned
schedule's validation loss first is at most the final one of the other at its best rate, 1 where it never is. Metric:
accuracy, AUC or explained variance at the median rate minus the best of all tuned schedules at all their rates, in
points. Wins: the share of cells, each counted once, in which the learned schedule at its median rate ends below the
other at its best; their intervals are Clopper and Pearson's. A run is at chance where its metric is at most {margin}
points above that of the best answer that is the same for all rows.

## Cell by cell

Final validation losses, and metrics in the last columns.

{cells}
"""
