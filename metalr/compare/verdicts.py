"""Who won and where: of each workload in a line and its figures, and of all in a sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from metalr.compare.analysis import Analysis, Claim
from metalr.compare.metrics import better
from metalr.compare.summary import Result, Standing
from metalr.compare.tables import arrow, interval, number

BETTER, WORSE, EVEN, NONE = "better", "worse", "even", "none"
"""Kinds of a verdict: by the paired test, or that there is none."""


@dataclass(frozen=True)
class Line:
    """One schedule in a verdict.

    Attributes:
        who: the schedule, and how its rate was chosen.
        value: the final metric, mean over seeds.
        said: what the paired test says of the candidate's one run against it.
    """

    who: str
    value: str
    said: str = ""


@dataclass(frozen=True)
class Verdict:
    """Who won on a workload.

    Attributes:
        workload: its name, with the metric and which way is better.
        kind: of the candidate, untuned, against the best-tuned baseline.
        lead: that in words.
        lines: the figures behind it.
    """

    workload: str
    kind: str
    lead: str
    lines: list[Line]

    @property
    def detail(self) -> str:
        """The lines as one sentence."""
        return "; ".join(f"{each.who}: {each.value}" + (f" ({each.said})" if each.said else "") for each in self.lines)


def verdicts(analysis: Analysis) -> list[Verdict]:
    """One a workload."""
    return [_verdict(result, analysis) for result in analysis.results]


def in_short(analysis: Analysis) -> str:
    """All workloads in a sentence."""
    kinds = Counter(verdict.kind for verdict in verdicts(analysis))
    said = {BETTER: "better", EVEN: "no difference shown", WORSE: "worse", NONE: "no claim"}
    counts = ", ".join(f"{word} on {kinds[kind]}" for kind, word in said.items() if kinds[kind])
    own = analysis.grid.candidate
    count = len(analysis.results)
    text = f"One untuned run of {own} against the best-tuned baseline: {counts} of {count} workload{'s'[: count != 1]}."
    row = analysis.same_rate_wins[[schedule.name for schedule in analysis.grid.ways].index(own)]
    if np.isfinite(row).any() and any(result.swept for result in analysis.results):
        text += f" From the same initial rate it wins {np.nanmean(row):.0%} of the runs."
    return text


def _verdict(result: Result, analysis: Analysis) -> Verdict:
    own, best = result.standing(analysis.grid.candidate), result.baseline
    name = f"{result.workload.name}, {arrow(result)}"
    if own is None or best is None:
        lead = "nothing to compare yet: the candidate or every baseline has no finished cell"
        return Verdict(name, NONE, lead, [_tuned(standing) for standing in result.standings])
    claims = [claim for claim in analysis.claims if claim.workload == result.workload.name]
    untuned, tuned = claims[:2]
    kind = {"better": BETTER, "worse": WORSE, "no difference shown": EVEN}.get(untuned.verdict, NONE)
    words = {
        BETTER: "untuned, beats the best-tuned baseline",
        WORSE: "untuned, is worse than the best-tuned baseline",
        EVEN: "untuned, is not shown to differ from the best-tuned baseline",
    }
    lines = [_untuned(own), _tuned(best, _said(untuned))]
    if result.swept:
        lines += _best_untuned(result, own, claims[2:])
        lines.append(_tuned(own, f"against {best.schedule} at {best.rate:.3g}: {_said(tuned)}"))
    return Verdict(name, kind, f"{own.schedule}, {words.get(kind, untuned.verdict)}", lines)


def _untuned(standing: Standing, said: str = "") -> Line:
    runs = len(standing.runs)
    how = f", the median of {runs} initial rates" if runs > 1 else f" at {standing.rate:.3g}"
    return Line(f"{standing.schedule}, one run{how}", number(standing.median.mean), said)


def _tuned(standing: Standing, said: str = "") -> Line:
    how = f", the best of {standing.cost_runs:.3g} runs" if standing.cost_runs > 1 else ""
    return Line(f"{standing.schedule} at {standing.rate:.3g}{how}", number(standing.tuned.mean), said)


def _best_untuned(result: Result, own: Standing, claims: list[Claim]) -> list[Line]:
    """The baseline that is best without tuning, and what is claimed against it."""
    best: Standing | None = None
    for standing in result.standings:
        if standing is own or len(standing.runs) < 2:
            continue
        if best is None or better(standing.median.mean, best.median.mean, result.workload.mode):
            best = standing
    if best is None:
        return []
    claim = next((claim for claim in claims if claim.baseline.startswith(f"{best.schedule}, untuned")), None)
    return [_untuned(best, _said(claim) if claim else "")]


def _said(claim: Claim) -> str:
    if claim.paired.interval is None:
        return claim.verdict
    return f"{claim.verdict}, {number(claim.paired.difference, 3)} {interval(claim.paired.interval)}"
