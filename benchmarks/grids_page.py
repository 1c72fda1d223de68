"""The page of docs about a folder of grids: at a glance, then each grid with its table and plot."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from jsonargparse import ArgumentParser

from metalr import LRPolicy
from metalr.cli.lightning_cli import instantiate
from metalr.compare import Grid
from metalr.compare.analysis import Analysis, analyse
from metalr.compare.files import write_text
from metalr.compare.fit import FitRun, Script
from metalr.compare.metrics import better
from metalr.compare.options import Options
from metalr.compare.record import Record
from metalr.compare.report.svg import overview
from metalr.compare.report.table import Table
from metalr.compare.report.tables import headline
from metalr.compare.report.text import Direction, Value, fenced, number
from metalr.compare.shell import command_line
from metalr.compare.summary import Result, Standing

DOCS = Path("docs")
INTRODUCTIONS = {
    "reduced": """# Every workload, cut down to two cores

The reduced version of each grid ([configs/compare/reduced](../configs/compare/reduced)), on real data cut
small: networks from scratch, some dozen steps. They show that every workload runs through `compare` with every
schedule, and how the schedules stand to each other there; they are no benchmark of the workloads themselves.

```bash
python -m benchmarks.grids reduced  # METALR_DATA is the folder of real data; writes this page
```

What the columns mean is in [compare.md](compare.md): *untuned* is the median over the initial rates, *tuned* the best
of them.""",
    "targets": """# What each workload reaches

Each workload on real data, on one core and from scratch, once with the learned schedule and once with a usual one, from
the same rate and with the same batches. One seed each: a difference of a few thousandths says nothing.

```bash
python -m benchmarks.grids targets  # METALR_DATA is the folder of real data; writes this page
```""",
}


@dataclass(frozen=True)
class Reported:
    """Holds a grid as far as it has been run.

    Attributes:
        path: its YAML.
        cell_runs: its cells.
        records: of those that are finished, whatever their command, config and policy.
        analysis: of those whose command, config and policy are today's; None without one.
    """

    path: Path
    cell_runs: list[FitRun]
    records: list[Record]
    analysis: Analysis | None

    @classmethod
    def read(cls, path: Path) -> Reported:
        """Reads a YAML and what is below logs, each record once."""
        grid = read_grid(path)
        out = Path("logs", "compare", grid.name)
        cell_runs = [FitRun(cell, out, Script("train.py")) for cell in grid.cells()]
        found = [(cell_run, record) for cell_run in cell_runs if (record := Record.load(cell_run.folder))]
        todays = [record for cell_run, record in found if record.fingerprint == cell_run.fingerprint()]
        return cls(path, cell_runs, [record for _, record in found], analyse(grid, todays) if todays else None)


def read_grid(path: Path) -> Grid:
    """Reads the grid of a YAML."""
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    for kind in (Grid, Options):
        parser.add_class_arguments(kind)
    given = instantiate(parser, parser.parse_args([f"--config={path}"]))
    return Grid(**{field.name: given[field.name] for field in fields(Grid)})


def write_page(folder: str, paths: Sequence[Path]) -> Path:
    """Writes `docs/<folder>.md` and a plot for each grid beside it.

    Args:
        folder: "reduced" or "targets".
        paths: YAMLs of its grids.
    """
    all_grids = [Reported.read(path) for path in paths]
    results = [(result, each.analysis) for each in all_grids if each.analysis for result in each.analysis.results]
    glance = (_standings if folder == "reduced" else _targets)(results)
    parts = [INTRODUCTIONS[folder], "", glance.markdown(), *_made_with(all_grids)]
    for each in all_grids:
        parts += _section(folder, each)
    page = DOCS / f"{folder}.md"
    write_text(page, "\n".join(parts).rstrip() + "\n")
    return page


def _section(folder: str, reported: Reported) -> list[str]:
    comment = [line.removeprefix("# ") for line in reported.path.read_text().splitlines() if line.startswith("# ")]
    what = " ".join(line for line in comment if not line.startswith((" ", "Needs METALR_DATA")))
    parts = ["", f"## {reported.path.stem}", "", what, "", f"[{reported.path}](../{reported.path})", ""]
    if reported.analysis is None:
        return [*parts, "Not run yet."]
    if folder == "reduced":
        table = headline(reported.analysis)
        parts += [table.body(), ""]
    name = reported.path.stem
    write_text(DOCS / folder / f"{name}.svg", overview(reported.analysis, name))
    parts += [f"![{name}: the final metric by initial rate, or the loss by step]({folder}/{name}.svg)"]
    if folder == "targets":
        typed = [command_line(command) for cell_run in reported.cell_runs for command in cell_run.commands()]
        parts += ["", fenced("\n".join(typed), "bash")]
    return parts


def _standings(results: Sequence[tuple[Result, Analysis]]) -> Table:
    """Makes one row a workload: the candidate untuned, the best-tuned baseline, and the worst rate of both."""
    rows: list[list[Value]] = []
    strong: set[tuple[int, int]] = set()
    for result, analysis in results:
        own, best = result.standing(analysis.design.candidate), result.baseline
        pairs = [(_mean(own, "median"), _mean(best, "tuned")), (_mean(own, "worst"), _mean(best, "worst"))]
        for i, (first, second) in enumerate(pairs):
            if not math.isnan(first + second) and first != second:
                won = better(first, second, result.workload.mode)
                strong.add((len(rows), 1 + 2 * i + (0 if won else 1)))
        named = f"{number(pairs[0][1])} ({best.schedule}, {best.rate:.3g})" if best else None
        grid = analysis.design.name.removesuffix("_reduced")
        label = (f"{grid}: {result.workload.name}", Direction.of(result.workload))
        rows.append([label, pairs[0][0], named, *pairs[1]])
    header = [
        "workload, metric",
        "learned, untuned",
        "best-tuned baseline",
        "learned, worst rate",
        "baseline, worst rate",
    ]
    note = (
        "Final value, mean over seeds: one untuned run of the learned schedule beside the best of the baselines' whole "
        "sweep; and what the worst initial rate makes of either. Bold: the better of the two, by chance or not."
    )
    return Table("At a glance", note, header, rows, strong)


def _mean(standing: Standing | None, kind: str) -> float:
    return math.nan if standing is None else float(getattr(standing, kind).mean)


def _targets(results: Sequence[tuple[Result, Analysis]]) -> Table:
    """Makes one row a workload: its target, and how far both schedules came."""
    rows: list[list[Value]] = []
    strong: set[tuple[int, int]] = set()
    for result, analysis in results:
        workload = result.workload
        figure = workload.metric.replace("val/", "test/") if workload.test else workload.metric
        sign = "≤" if workload.mode == "min" else "≥"
        row: list[Value] = [workload.name, f"{figure} {sign} {workload.threshold:g}"]
        candidate = analysis.design.candidate
        for schedule in sorted(analysis.design.schedule_names, key=lambda name: name != candidate):
            standing = result.standing(schedule)
            if standing is None:
                row.append("not run yet")
                continue
            (record,) = standing.runs[standing.rate].values()
            value = (record.test | record.final)[figure]
            if not better(workload.threshold or math.nan, value, workload.mode):
                strong.add((len(rows), len(row)))
            loss = record.final[workload.train_loss]
            text = f"{number(value)}; training loss {loss:.2g}, {record.steps} steps, {record.seconds:.0f} s"
            row.append(text if schedule == candidate else f"{schedule}: {text}")
        rows.append(row)
    note = (
        "At the end of training; seconds from the first step, of a machine that did other things beside. Bold: the "
        "target is reached."
    )
    return Table("At a glance", note, ["workload", "target", "learned", "usual"], rows, strong)


def _made_with(grids: Sequence[Reported]) -> Iterator[str]:
    made = {
        ", ".join(f"{name} {value}" for name, value in record.made_with.items())
        for each in grids
        for record in each.records
    }
    yield from (f"Made with {kind}." for kind in sorted(made))
    policies = (f"`{name}` `{LRPolicy.load(name).fingerprint()}`" for name in ("default", "boosting"))
    yield f"The learned schedule is that of the policies {' and '.join(policies)} (fingerprints)."
