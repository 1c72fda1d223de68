"""Writes the report: one page that stands alone, the same as Markdown, and the numbers as CSV and Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from rich.console import Console
from rich.table import Table as Rows
from rich.text import Text

from metalr.compare.analysis import Analysis, analyse
from metalr.compare.cell import CellRun
from metalr.compare.design import Design
from metalr.compare.files import write_text
from metalr.compare.report.frames import cells_frame, curves_frame, summary_frame
from metalr.compare.report.svg import plots, standalone, variables
from metalr.compare.report.tables import all_tables, headline
from metalr.compare.report.text import fenced, markdown
from metalr.compare.report.verdicts import Worded, in_short, short, verdicts
from metalr.compare.runner import Outcome
from metalr.compare.shell import command_line, references
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
    """Holds a cell that failed, and the end of its log."""

    name: str
    log: str


@dataclass(frozen=True)
class Content:
    """Holds what a report says, whatever it is written as.

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
    def of(cls, analysis: Analysis, cell_runs: Sequence[CellRun], outcome: Outcome) -> Content:
        """Gathers the content for the cells of an experiment and what became of them."""
        failures = [Failure(name, log) for name, log in outcome.failed.items()]
        notes = remarks(analysis, cell_runs, outcome)
        return cls(analysis, plots(analysis), cell_commands(cell_runs), failures, notes)


def write_report(design: Design, cell_runs: Sequence[CellRun], outcome: Outcome, out: Path) -> Path:
    """Writes `report.html`, `report.md`, `plots/`, and cells, curves and summary as `.csv` and `.parquet`.

    Args:
        design: that was run.
        cell_runs: its cells.
        outcome: what became of them; one finished cell or more.
        out: folder.

    Returns:
        The page.
    """
    analysis = analyse(design, outcome.records.values())
    frames = {
        "cells": cells_frame(cell_runs, outcome),
        "curves": curves_frame(outcome.records.values()),
        "summary": summary_frame(analysis),
    }
    for name, frame in frames.items():
        frame.to_csv(out / f"{name}.csv", index=False)
        frame.to_parquet(out / f"{name}.parquet", index=False)
    content = Content.of(analysis, cell_runs, outcome)
    for name, svg in content.drawn.items():
        write_text(out / "plots" / f"{name}.svg", standalone(svg))
    write_text(out / "report.md", _markdown(content))
    page = out / "report.html"
    write_text(page, _html(content))
    return page


def cell_commands(cell_runs: Sequence[CellRun]) -> dict[str, str]:
    """Gives the command of every cell, by its name, as one types it."""
    return {cell_run.name: command_line(cell_run.command()) for cell_run in cell_runs}


def remarks(analysis: Analysis, cell_runs: Sequence[CellRun], outcome: Outcome) -> list[str]:
    """Lists what a reader must know before believing a figure."""
    found = []
    done = len(outcome.records)
    if done < len(cell_runs):
        counts = f"{done} of {len(cell_runs)} cells are finished, {len(outcome.failed)} failed"
        found.append(f"{counts}: the figures are of the finished.")
    for result in analysis.results:
        if not result.same_start:
            name = result.workload.name
            found.append(f"{name}: runs of one seed did not start from the same first loss, so they are not paired.")
    for name in references(argument for cell_run in cell_runs for argument in cell_run.command()):
        found.append(f"{name} was {os.environ.get(name, 'not set')}.")
    made = [record.made_with for record in outcome.records.values()]
    kinds = {", ".join(f"{name} {value}" for name, value in each.items()) for each in made}
    return [*found, *(f"Made with {kind}." for kind in sorted(kinds))]


def print_tables(design: Design, outcome: Outcome, console: Console) -> None:
    """Prints the headline and the sentences in the terminal."""
    analysis = analyse(design, outcome.records.values())
    table = headline(analysis)
    shown = Rows(title=Text(f"{design.name}: final value by initial rate, mean over seeds"))
    for j, name in enumerate(table.header):
        shown.add_column(Text(name), justify="right" if j else "left", no_wrap=True)
    for i, row in enumerate(table.text()):
        shown.add_row(*(Text(text, "bold green" if (i, j) in table.strong else "") for j, text in enumerate(row)))
    console.print(shown)
    for verdict in map(Worded, verdicts(analysis)):
        console.print(Text(f"{verdict.workload}: {verdict.lead}", "bold"))
        console.print(Text(f"  {verdict.detail}"))
    console.print(Text(in_short(short(analysis)), "bold"))
    for name in outcome.failed:
        console.print(Text(f"failed: {name}", "red"))


def _html(content: Content) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("metalr.compare.report") / "report.html.j2").read_text(encoding="utf-8"))
    first, *rest = all_tables(content.analysis)
    return template.render(
        **{field.name: getattr(content, field.name) for field in fields(content)},
        first=first,
        rest=rest,
        in_short=in_short(short(content.analysis)),
        verdicts=[Worded(verdict) for verdict in verdicts(content.analysis)],
        captions=CAPTIONS,
        wins=WINS,
        themes={name: variables(theme) for name, theme in THEMES.items()},
    )


def _markdown(content: Content) -> str:
    analysis = content.analysis
    parts = [f"# {markdown(analysis.design.name)}", "", in_short(short(analysis), markdown), ""]
    worded = [Worded(verdict, markdown) for verdict in verdicts(analysis)]
    parts += [f"- **{each.workload}: {each.lead}.** {each.detail}." for each in worded] + [""]
    first, *rest = all_tables(analysis)
    parts.append(first.markdown())
    parts += [f"![{markdown(name)}](plots/{name}.svg)" for name in content.drawn]
    parts += ["", *(table.markdown() for table in rest)]
    for failure in content.failures:
        parts.append(f"## Failed: {markdown(failure.name)}\n\n{fenced(failure.log)}\n")
    parts += ["## How it was made", "", *(f"- {markdown(note)}" for note in content.notes), ""]
    parts.append(fenced("\n".join(content.commands.values()), "bash"))
    return "\n".join(parts) + "\n"
