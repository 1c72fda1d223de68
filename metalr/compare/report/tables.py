"""The report's tables: what they say, the same on the page, in Markdown and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from metalr.compare.analysis import Analysis, Finding
from metalr.compare.metrics import Summary, better
from metalr.compare.report.table import Table
from metalr.compare.report.text import Count, Direction, Number, Share, Span, Steps, Value, entrant
from metalr.compare.summary import Speed, Standing


def all_tables(analysis: Analysis) -> list[Table]:
    """Makes the tables of a report, in its order; empty ones are left out."""
    made = (headline, claims, sensitivities, speeds, stability, final_metrics)
    return [table for make in made if (table := make(analysis)).rows]


def headline(analysis: Analysis) -> Table:
    """Shows every schedule with the best, the median and the worst of its initial rates."""
    names = analysis.design.schedule_names
    rows: list[list[Value]] = []
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
            label = (result.workload.name, Direction.of(result.workload), kind)
            rows.append([label, *(found.get(name, math.nan) for name in names)])
    note = (
        "Final value, mean over seeds. Best rate: tuned, at the cost of a run for every rate. Median rate: what one "
        "run is worth that was not tuned. Bold: the best of the row, whether or not the difference is more than chance."
    )
    return Table("Final value by initial rate", note, ["workload, metric, rate", *names], rows, strong)


def claims(analysis: Analysis) -> Table:
    """Compares the candidate with the baselines, with intervals."""
    rows: list[list[Value]] = [
        [
            *(claim.workload, entrant(claim.candidate), entrant(claim.baseline)),
            claim.paired.difference if math.isfinite(claim.paired.difference) else None,
            claim.paired.interval,
            None if claim.p is None else Number(claim.p, 2),
            claim,
        ]
        for claim in analysis.claims
    ]
    decided = (Finding.BETTER, Finding.WORSE)
    strong = {(i, 6) for i, claim in enumerate(analysis.claims) if claim.finding in decided}
    header = ["workload", "first", "second", "first − second", "95 % interval", "p", "first is"]
    note = (
        "Final metric, over the same seeds: mean difference with Student's interval and the paired t test, p adjusted "
        "for the number of rows (Holm). Untuned: the median over the initial rates."
    )
    return Table("Differences", note, header, rows, strong)


def speeds(analysis: Analysis) -> Table:
    """Shows the time to the threshold, and what finding the tuned rate cost."""
    rows: list[list[Value]] = []
    strong: set[tuple[int, int]] = set()
    for result in analysis.results:
        best = _best({s.schedule: s.tuned_speed.steps for s in result.standings}, "min")
        for s in result.standings:
            strong |= {(len(rows), 3)} if s.schedule in best and math.isfinite(s.tuned_speed.steps) else set()
            cost = (Number(s.cost_runs, 3, "runs"), Number(s.cost_steps, 6, "steps"), Number(s.cost_seconds, 3, "s"))
            where = (result.workload.name, Number(result.threshold))
            rows.append([where, _tuned(s), *_speed(s.tuned_speed), *_any(s.any_speed), cost])
    header = ["workload, threshold", "schedule, tuned rate", "reached", "steps", "epochs", "seconds"]
    header += ["reached, any rate", "steps, any rate", "cost of tuning"]
    note = (
        "Steps, epochs and seconds to the threshold: the workload's own, or the best-tuned baseline's final value. "
        "Medians over runs; > end: half of them or more did not get there. The cost is that of one seed at "
        "all rates. Seconds are of workers side by side on one machine."
    )
    return Table("Speed and cost", note, header, rows, strong)


def stability(analysis: Analysis) -> Table:
    """Shows the spread over seeds at the tuned rate."""
    rows: list[list[Value]] = [
        [
            *(result.workload.name, _tuned(s), s.tuned.n, s.tuned.mean, Number(s.tuned.sd, 2)),
            *(Span(Number(s.tuned.low), Number(s.tuned.high)), s.tuned.interval),
        ]
        for result in analysis.results
        for s in result.standings
    ]
    header = ["workload", "schedule, tuned rate", "seeds", "mean", "sd", "range", "95 % interval"]
    note = "Final metric over seeds, with a percentile bootstrap interval of the mean: of few seeds it is too narrow."
    return Table("Stability", note, header, rows)


def sensitivities(analysis: Analysis) -> Table:
    """Shows how much the initial rate matters."""
    rows: list[list[Value]] = []
    strong: set[tuple[int, int]] = set()
    for result in analysis.results:
        standings = [s for s in result.standings if len(s.runs) > 1]
        least = _best({s.schedule: s.sensitivity.mean for s in standings}, "min")
        widest = _best({s.schedule: s.decades for s in standings}, "max")
        for s in standings:
            strong |= {(len(rows), 2)} if s.schedule in least else set()
            strong |= {(len(rows), 4)} if s.schedule in widest else set()
            low, high = min(s.runs), max(s.runs)
            rates = (len(s.runs), Span(Number(low, 3), Number(high, 3)))
            share = Share(s.decades, math.log10(high / low))
            rows.append([result.workload.name, s.schedule, s.sensitivity, rates, share])
    header = ["workload", "schedule", "sensitivity ↓", "initial rates", "decades within 5 % ↑"]
    note = (
        "Sensitivity (Wortsman et al. 2023): mean over rates of min(final loss, initial loss) less the loss at the "
        "best rate; 0 is insensitive. Decades: share of the range of rates over which the final loss is within 5 % of "
        "the least of all schedules."
    )
    return Table("Sensitivity to the initial rate", note, header, rows, strong)


def final_metrics(analysis: Analysis) -> Table:
    """Shows every metric of validation and test at the tuned rate."""
    names = analysis.design.schedule_names
    rows: list[list[Value]] = []
    for result in analysis.results:
        by = {s.schedule: s.metrics for s in result.standings}
        for metric in dict.fromkeys(name for metrics in by.values() for name in metrics):
            rows.append([result.workload.name, metric, *(by.get(name, {}).get(metric) for name in names)])
    note = "At the end of training, each schedule at its tuned rate: mean and standard deviation over seeds."
    return Table("All metrics", note, ["workload", "metric", *names], rows)


def _best(found: Mapping[str, float], mode: str) -> set[str]:
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    return {n for n, v in known.items() if not any(better(other, v, mode) for other in known.values())}


def _tuned(standing: Standing) -> Value:
    return (standing.schedule, Number(standing.rate, 3))


def _speed(speed: Speed) -> list[Value]:
    reached, steps = Count(speed.reached, speed.runs), Steps(speed.steps)
    if math.isinf(speed.steps):
        return [reached, steps, None, None]
    return [reached, steps, Number(speed.epochs, 3), Number(speed.seconds, 3)]


def _any(speed: Speed) -> list[Value]:
    return [Count(speed.reached, speed.runs), Steps(speed.steps)]
