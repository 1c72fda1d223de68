"""The report: one page that stands alone, the same as Markdown, and the numbers as CSV and Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from rich.console import Console
from rich.table import Table as Grid_
from rich.text import Text

from metalr.compare import tables
from metalr.compare.analysis import Analysis, analyse
from metalr.compare.cell import CellRun
from metalr.compare.files import write_text
from metalr.compare.grid import VARIABLE, Grid
from metalr.compare.plots import plots, standalone, variables
from metalr.compare.runner import Outcome
from metalr.compare.tables import Table
from metalr.compare.verdicts import in_short, verdicts
from metalr.plotting.palette import THEMES

CAPTIONS = {
    "rates": "Final metric against the initial rate: mean and range over seeds; × at the edge: a run diverged",
    "loss": "Validation loss during training, each schedule at its tuned rate: mean and range over seeds",
    "schedule": "Learning rate during training, first seed; thin: the candidate from its other initial rates",
    "speed": "Steps to the threshold at the tuned rate: median, a circle a seed; hatched: not reached",
}
WINS = {
    "wins-tuned": "Both at their tuned rates: share of workloads and seeds that the row wins",
    "wins-same-rate": "Both from the same initial rate: share of workloads, rates and seeds that the row wins",
}


@dataclass(frozen=True)
class Failure:
    """A cell that failed, and the end of its log."""

    name: str
    log: str


@dataclass(frozen=True)
class Content:
    """What a report says, whatever it is written as.

    Attributes:
        analysis: the figures.
        drawn: plots, SVG by name.
        commands: of the cells, by name.
        failures: cells that failed.
        notes: what a reader must know before believing a figure.
    """

    analysis: Analysis
    drawn: dict[str, str]
    commands: dict[str, str]
    failures: list[Failure]
    notes: list[str]

    @classmethod
    def of(cls, analysis: Analysis, tasks: Sequence[CellRun], outcome: Outcome) -> Content:
        """The content for the cells of a grid and what became of them."""
        failures = [Failure(name, log) for name, log in outcome.failed.items()]
        notes = remarks(analysis, tasks, outcome)
        return cls(analysis, plots(analysis), tables.cell_commands(tasks), failures, notes)


def write_report(grid: Grid, tasks: Sequence[CellRun], outcome: Outcome, out: Path) -> Path:
    """Writes `report.html`, `report.md`, `plots/`, and cells, curves and summary as `.csv` and `.parquet`.

    Args:
        grid: that was run.
        tasks: its cells.
        outcome: what became of them; one finished cell or more.
        out: folder.

    Returns:
        The page.
    """
    analysis = analyse(grid, outcome.records.values())
    frames = {
        "cells": tables.cells_frame(grid, tasks, outcome),
        "curves": tables.curves_frame(outcome.records.values()),
        "summary": tables.summary_frame(analysis),
    }
    for name, frame in frames.items():
        frame.to_csv(out / f"{name}.csv", index=False)
        frame.to_parquet(out / f"{name}.parquet", index=False)
    content = Content.of(analysis, tasks, outcome)
    for name, svg in content.drawn.items():
        write_text(out / "plots" / f"{name}.svg", standalone(svg))
    write_text(out / "report.md", _markdown(content))
    page = out / "report.html"
    write_text(page, _html(content))
    return page


def all_tables(analysis: Analysis) -> list[Table]:
    """Those of a report, in its order; empty ones left out."""
    made = (
        *(tables.headline(analysis), tables.claims(analysis), tables.sensitivities(analysis)),
        *(tables.speeds(analysis), tables.stability(analysis), tables.final_metrics(analysis)),
    )
    return [table for table in made if table.rows]


def remarks(analysis: Analysis, tasks: Sequence[CellRun], outcome: Outcome) -> list[str]:
    """What a reader must know before believing a figure."""
    found = []
    done = len(outcome.records)
    if done < len(tasks):
        failed = len(outcome.failed)
        found.append(f"{done} of {len(tasks)} cells are finished, {failed} failed: the figures are of the finished.")
    for result in analysis.results:
        if not result.same_start:
            name = result.workload.name
            found.append(f"{name}: runs of one seed did not start from the same first loss, so they are not paired.")
    commands = " ".join(argument for task in tasks for argument in task.cell.fit(task.out))
    for name in sorted(set(VARIABLE.findall(commands))):
        found.append(f"{name} was {os.environ.get(name, 'not set')}.")
    made = [record.made_with for record in outcome.records.values()]
    kinds = {", ".join(f"{name} {value}" for name, value in each.items()) for each in made}
    return [*found, *(f"Made with {kind}." for kind in sorted(kinds))]


def print_tables(grid: Grid, outcome: Outcome, console: Console) -> None:
    """The headline and the sentences, in the terminal."""
    analysis = analyse(grid, outcome.records.values())
    table = tables.headline(analysis)
    shown = Grid_(title=f"{grid.name}: final value by initial rate, mean over seeds")
    for j, name in enumerate(table.header):
        shown.add_column(name, justify="right" if j else "left", no_wrap=True)
    for i, row in enumerate(table.rows):
        shown.add_row(*(Text(text, "bold green" if (i, j) in table.strong else "") for j, text in enumerate(row)))
    console.print(shown)
    for verdict in verdicts(analysis):
        console.print(Text(f"{verdict.workload}: {verdict.lead}", "bold"))
        console.print(Text(f"  {verdict.detail}"))
    console.print(Text(in_short(analysis), "bold"))
    for name in outcome.failed:
        console.print(Text(f"failed: {name}", "red"))


def _html(content: Content) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("metalr.compare") / "report.html.j2").read_text(encoding="utf-8"))
    first, *rest = all_tables(content.analysis)
    return template.render(
        **{field.name: getattr(content, field.name) for field in fields(content)},
        first=first,
        rest=rest,
        in_short=in_short(content.analysis),
        verdicts=verdicts(content.analysis),
        captions=CAPTIONS,
        wins=WINS,
        themes={name: variables(theme) for name, theme in THEMES.items()},
    )


def _markdown(content: Content) -> str:
    parts = [f"# {content.analysis.grid.name}", "", in_short(content.analysis), ""]
    parts += [f"- **{each.workload}: {each.lead}.** {each.detail}." for each in verdicts(content.analysis)] + [""]
    first, *rest = all_tables(content.analysis)
    parts.append(first.markdown())
    parts += [f"![{name}](plots/{name}.svg)" for name in content.drawn]
    parts += ["", *(table.markdown() for table in rest)]
    for failure in content.failures:
        parts.append(f"## Failed: {failure.name}\n\n```\n{failure.log}\n```\n")
    parts += ["## How it was made", "", *(f"- {note}" for note in content.notes), ""]
    parts += ["```bash", *content.commands.values(), "```"]
    return "\n".join(parts) + "\n"
