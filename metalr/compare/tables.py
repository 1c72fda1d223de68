"""The report's tables: what they say, the same on the page, in Markdown and in the terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from metalr.compare.analysis import Analysis
from metalr.compare.cell import CellRun
from metalr.compare.grid import Grid
from metalr.compare.metrics import Interval, Summary, better
from metalr.compare.record import Record
from metalr.compare.runner import Outcome
from metalr.compare.summary import Result, Speed, Standing


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        title, note: above the table; the note says what its columns are.
        header: of the columns.
        rows: each as long as the header.
        strong: row and column of what is best.
    """

    title: str
    note: str
    header: list[str]
    rows: list[list[str]]
    strong: set[tuple[int, int]] = field(default_factory=set)

    def markdown(self) -> str:
        """As a Markdown section."""
        return f"## {self.title}\n\n{self.note}\n\n{self.body()}\n"

    def body(self) -> str:
        """As a Markdown table alone."""
        body = [
            [f"**{text}**" if (i, j) in self.strong else text for j, text in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        lines = [self.header, ["---"] * len(self.header), *body]
        return "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)


def number(value: float, digits: int = 4) -> str:
    """A figure as a report shows it."""
    if math.isnan(value):
        return "–"
    return "diverged" if math.isinf(value) else f"{value:.{digits}g}"


def spread(summary: Summary) -> str:
    """Mean and standard deviation."""
    sd = "" if math.isnan(summary.sd) else f" ± {summary.sd:.2g}"
    return number(summary.mean) + sd


def interval(found: Interval | None) -> str:
    """An interval, or a dash."""
    return "–" if found is None else f"[{found.low:.4g}, {found.high:.4g}]"


def arrow(result: Result) -> str:
    """The metric's name and which way is better."""
    return f"{result.workload.metric} {'↓' if result.workload.mode == 'min' else '↑'}"


def headline(analysis: Analysis) -> Table:
    """Every schedule with the best, the median and the worst of its initial rates."""
    names = [schedule.name for schedule in analysis.grid.ways]
    rows: list[list[str]] = []
    strong: set[tuple[int, int]] = set()
    kinds: tuple[tuple[str, Callable[[Standing], Summary]], ...] = (
        ("best rate", lambda s: s.tuned),
        ("median rate", lambda s: s.median),
        ("worst rate", lambda s: s.worst),
    )
    for result in analysis.results:
        for kind, pick in kinds if result.swept else kinds[:1]:
            found = {s.schedule: pick(s).mean for s in result.standings}
            best = _best(found, result.workload.mode)
            strong |= {(len(rows), 1 + names.index(name)) for name in best}
            label = f"{result.workload.name}, {arrow(result)}, {kind}"
            rows.append([label, *(number(found.get(n, math.nan)) for n in names)])
    note = (
        "Final value, mean over seeds. Best rate: tuned, at the cost of a run for every rate. Median rate: what one "
        "run is worth that was not tuned. Bold: the best of the row, whether or not the difference is more than chance."
    )
    return Table("Final value by initial rate", note, ["workload, metric, rate", *names], rows, strong)


def claims(analysis: Analysis) -> Table:
    """The candidate against the baselines, with intervals."""
    rows = [
        [
            claim.workload,
            claim.candidate,
            claim.baseline,
            number(claim.paired.difference) if math.isfinite(claim.paired.difference) else "–",
            interval(claim.paired.interval),
            "–" if claim.p is None else f"{claim.p:.2g}",
            claim.verdict,
        ]
        for claim in analysis.claims
    ]
    strong = {(i, 6) for i, claim in enumerate(analysis.claims) if claim.verdict in ("better", "worse")}
    header = ["workload", "first", "second", "first − second", "95 % interval", "p", "first is"]
    note = (
        "Final metric, over the same seeds: mean difference with Student's interval and the paired t test, p adjusted "
        "for the number of rows (Holm). Untuned: the median over the initial rates."
    )
    return Table("Differences", note, header, rows, strong)


def speeds(analysis: Analysis) -> Table:
    """Time to the threshold, and what finding the tuned rate cost."""
    rows: list[list[str]] = []
    strong: set[tuple[int, int]] = set()
    for result in analysis.results:
        best = _best({s.schedule: s.tuned_speed.steps for s in result.standings}, "min")
        for s in result.standings:
            strong |= {(len(rows), 3)} if s.schedule in best and math.isfinite(s.tuned_speed.steps) else set()
            cost = f"{s.cost_runs:.3g} runs, {s.cost_steps:.6g} steps, {s.cost_seconds:.3g} s"
            where = f"{result.workload.name}, {result.threshold:.4g}"
            rows.append([where, f"{s.schedule}, {s.rate:.3g}", *_speed(s.tuned_speed), *_any(s.any_speed), cost])
    header = ["workload, threshold", "schedule, tuned rate", "reached", "steps", "epochs", "seconds"]
    header += ["reached, any rate", "steps, any rate", "cost of tuning"]
    note = (
        "Steps, epochs and seconds to the threshold: the workload's own, or the best-tuned baseline's final value. "
        "Medians over runs; > end: half of them or more did not get there. The cost is that of one seed at "
        "all rates. Seconds are of workers side by side on one machine."
    )
    return Table("Speed and cost", note, header, rows, strong)


def stability(analysis: Analysis) -> Table:
    """Spread over seeds at the tuned rate."""
    rows = [
        [
            *(result.workload.name, f"{s.schedule}, {s.rate:.3g}", str(s.tuned.n), number(s.tuned.mean)),
            *(number(s.tuned.sd, 2), f"{number(s.tuned.low)} to {number(s.tuned.high)}", interval(s.tuned.interval)),
        ]
        for result in analysis.results
        for s in result.standings
    ]
    header = ["workload", "schedule, tuned rate", "seeds", "mean", "sd", "range", "95 % interval"]
    note = "Final metric over seeds, with a percentile bootstrap interval of the mean: of few seeds it is too narrow."
    return Table("Stability", note, header, rows)


def sensitivities(analysis: Analysis) -> Table:
    """How much the initial rate matters."""
    rows: list[list[str]] = []
    strong: set[tuple[int, int]] = set()
    for result in analysis.results:
        standings = [s for s in result.standings if len(s.runs) > 1]
        least = _best({s.schedule: s.sensitivity.mean for s in standings}, "min")
        widest = _best({s.schedule: s.decades for s in standings}, "max")
        for s in standings:
            strong |= {(len(rows), 2)} if s.schedule in least else set()
            strong |= {(len(rows), 4)} if s.schedule in widest else set()
            decades = math.log10(max(s.runs) / min(s.runs))
            share = f"{s.decades:.0%} of {decades:.2g}"
            rows.append([result.workload.name, s.schedule, spread(s.sensitivity), _span(s), share])
    header = ["workload", "schedule", "sensitivity ↓", "initial rates", "decades within 5 % ↑"]
    note = (
        "Sensitivity (Wortsman et al. 2023): mean over rates of min(final loss, initial loss) less the loss at the "
        "best rate; 0 is insensitive. Decades: share of the range of rates over which the final loss is within 5 % of "
        "the least of all schedules."
    )
    return Table("Sensitivity to the initial rate", note, header, rows, strong)


def final_metrics(analysis: Analysis) -> Table:
    """Every metric of validation and test at the tuned rate."""
    names = [schedule.name for schedule in analysis.grid.ways]
    rows = []
    for result in analysis.results:
        by = {s.schedule: s.metrics for s in result.standings}
        for metric in dict.fromkeys(name for metrics in by.values() for name in metrics):
            rows.append(
                [
                    result.workload.name,
                    metric,
                    *(spread(by[n][metric]) if metric in by.get(n, {}) else "–" for n in names),
                ]
            )
    note = "At the end of training, each schedule at its tuned rate: mean and standard deviation over seeds."
    return Table("All metrics", note, ["workload", "metric", *names], rows)


def cell_commands(tasks: Sequence[CellRun]) -> dict[str, str]:
    """The command of every cell, by its name, as one types it."""
    return {task.cell.name: command_line(task.script.command, task.cell.fit(task.out)) for task in tasks}


def command_line(script: Sequence[str], arguments: Sequence[str]) -> str:
    """A command for the shell, in which `$NAME` is still read from the environment."""
    return " ".join([*script, *(_quoted(argument) for argument in arguments)])


def cells_frame(grid: Grid, tasks: Sequence[CellRun], outcome: Outcome) -> pd.DataFrame:
    """One row a cell: its place in the grid, its status, and what it ended with."""
    rows = []
    for task in tasks:
        cell, record = task.cell, outcome.records.get(task.cell.name)
        status = "finished" if record else "failed" if cell.name in outcome.failed else "not run"
        row: dict[str, object] = {"workload": cell.workload.name, "schedule": cell.schedule.name, "rate": cell.rate}
        row |= {"seed": cell.seed, "status": status, "metric": cell.workload.metric}
        if record:
            row |= _figures(record)
        rows.append(row)
    return pd.DataFrame(rows)


def curves_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a point of a curve."""
    parts = [
        pd.DataFrame({"step": steps, "value": values}).assign(
            workload=r.workload, schedule=r.schedule, rate=r.rate, seed=r.seed, curve=name
        )
        for r in records
        for name, (steps, values) in r.curves.items()
    ]
    return pd.concat(parts, ignore_index=True)[["workload", "schedule", "rate", "seed", "curve", "step", "value"]]


def summary_frame(analysis: Analysis) -> pd.DataFrame:
    """One row a workload, schedule and figure over seeds."""
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


def _best(found: Mapping[str, float], mode: str) -> set[str]:
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    return {n for n, v in known.items() if not any(better(other, v, mode) for other in known.values())}


def _speed(speed: Speed) -> list[str]:
    reached = f"{speed.reached} of {speed.runs}"
    if math.isinf(speed.steps):
        return [reached, "> end", "–", "–"]
    return [reached, f"{speed.steps:.0f}", number(speed.epochs, 3), number(speed.seconds, 3)]


def _any(speed: Speed) -> list[str]:
    return [f"{speed.reached} of {speed.runs}", "> end" if math.isinf(speed.steps) else f"{speed.steps:.0f}"]


def _span(standing: Standing) -> str:
    rates = list(standing.runs)
    return f"{len(rates)}, {min(rates):.3g} to {max(rates):.3g}"


def _quoted(argument: str) -> str:
    quoted = shlex.quote(argument)
    return f'"{argument}"' if "$" in argument and quoted != argument else quoted
