"""Who won and where, on each workload and on all: as values, and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from metalr.compare.analysis import Analysis, Claim, Finding, tuned, untuned
from metalr.compare.metrics import better
from metalr.compare.report import text
from metalr.compare.report.text import Direction, Escape, number, show, unescaped
from metalr.compare.summary import Result, Standing


@dataclass(frozen=True)
class Line:
    """Holds one schedule of a verdict.

    Attributes:
        standing: of the schedule.
        tuned: whether at its tuned rate; otherwise the median over its rates.
        claim: about the candidate against it, or about it against `against`.
        against: the baseline that the candidate's own tuned rate is compared with.
    """

    standing: Standing
    tuned: bool
    claim: Claim | None = None
    against: Standing | None = None

    @property
    def value(self) -> float:
        """The final metric, mean over seeds."""
        return self.standing.tuned.mean if self.tuned else self.standing.median.mean


@dataclass(frozen=True)
class Verdict:
    """States who won on a workload.

    Attributes:
        result: of the workload.
        candidate: name of the schedule that it is about.
        claim: the candidate, untuned, against the best-tuned baseline; None where one of the two is missing.
        lines: the figures behind it.
    """

    result: Result
    candidate: str
    claim: Claim | None
    lines: list[Line]

    @property
    def finding(self) -> Finding:
        """What is shown of the candidate, untuned, against the best-tuned baseline."""
        return Finding.NOTHING_TO_COMPARE if self.claim is None else self.claim.finding


@dataclass(frozen=True)
class Short:
    """Sums up all verdicts.

    Attributes:
        candidate: name of the schedule that it is about.
        workloads: number of workloads.
        findings: number of workloads by finding.
        same_rate_wins: share of runs that the candidate wins from the same rate; None without several rates.
    """

    candidate: str
    workloads: int
    findings: Mapping[Finding, int]
    same_rate_wins: float | None


def verdicts(analysis: Analysis) -> list[Verdict]:
    """Judges each workload."""
    return [_verdict(result, analysis) for result in analysis.results]


def short(analysis: Analysis) -> Short:
    """Sums up all workloads."""
    findings = Counter(verdict.finding for verdict in verdicts(analysis))
    candidate = analysis.design.candidate
    row = analysis.same_rate_wins[analysis.design.schedule_names.index(candidate)]
    swept = np.isfinite(row).any() and any(result.swept for result in analysis.results)
    return Short(candidate, len(analysis.results), findings, float(np.nanmean(row)) if swept else None)


def _verdict(result: Result, analysis: Analysis) -> Verdict:
    own, best = result.standing(analysis.design.candidate), result.baseline
    if own is None or best is None:
        lines = [Line(standing, tuned=True) for standing in result.standings]
        return Verdict(result, analysis.design.candidate, None, lines)
    name = result.workload.name
    found = analysis.claim(name, untuned(own), tuned(best))
    lines = [Line(own, tuned=False), Line(best, tuned=True, claim=found)]
    if result.swept:
        if other := _best_untuned(result, own):
            lines.append(Line(other, tuned=False, claim=analysis.claim(name, untuned(own), untuned(other))))
        lines.append(Line(own, tuned=True, claim=analysis.claim(name, tuned(own), tuned(best)), against=best))
    return Verdict(result, analysis.design.candidate, found, lines)


def _best_untuned(result: Result, own: Standing) -> Standing | None:
    """Finds the baseline with several rates that is best without tuning."""
    best: Standing | None = None
    for standing in result.standings:
        if standing is own or len(standing.runs) < 2:
            continue
        if best is None or better(standing.median.mean, best.median.mean, result.workload.mode):
            best = standing
    return best


KINDS = {Finding.BETTER: "better", Finding.WORSE: "worse", Finding.NO_DIFFERENCE: "even"}
"""Findings by the name of their style on the page; of the others it is "none"."""


@dataclass(frozen=True)
class Worded:
    """Puts a verdict into words.

    Attributes:
        verdict: to be worded.
        escape: of names.
    """

    verdict: Verdict
    escape: Escape = unescaped

    @property
    def workload(self) -> str:
        """The workload with its metric and which way is better."""
        workload = self.verdict.result.workload
        return show((workload.name, Direction.of(workload)), self.escape)

    @property
    def kind(self) -> str:
        """The name of its style on the page."""
        return KINDS.get(self.verdict.finding, "none")

    @property
    def lead(self) -> str:
        """The finding."""
        claim = self.verdict.claim
        if claim is None:
            return "nothing to compare yet: the candidate or every baseline has no finished cell"
        said = {
            Finding.BETTER: "untuned, beats the best-tuned baseline",
            Finding.WORSE: "untuned, is worse than the best-tuned baseline",
            Finding.NO_DIFFERENCE: "untuned, is not shown to differ from the best-tuned baseline",
        }
        return f"{self.escape(self.verdict.candidate)}, {said.get(claim.finding) or text.verdict_of(claim)}"

    def lines(self) -> Iterator[tuple[str, str, str]]:
        """Lists each schedule: its name, its figure, and what the paired test says of the candidate against it."""
        for line in self.verdict.lines:
            yield self._who(line), number(line.value), self._said(line)

    @property
    def detail(self) -> str:
        """The lines as one sentence."""
        return "; ".join(f"{who}: {value}" + (f" ({said})" if said else "") for who, value, said in self.lines())

    def _who(self, line: Line) -> str:
        standing, name = line.standing, self.escape(line.standing.schedule)
        if line.tuned:
            how = f", the best of {standing.cost_runs:.3g} runs" if standing.cost_runs > 1 else ""
            return f"{name} at {standing.rate:.3g}{how}"
        runs = len(standing.runs)
        how = f", the median of {runs} initial rates" if runs > 1 else f" at {standing.rate:.3g}"
        return f"{name}, one run{how}"

    def _said(self, line: Line) -> str:
        if line.claim is None:
            return ""
        against = line.against
        where = f"against {self.escape(against.schedule)} at {against.rate:.3g}: " if against else ""
        return where + text.claim(line.claim)


def in_short(found: Short, escape: Escape = unescaped) -> str:
    """Puts the sum of all verdicts into a sentence or two."""
    said = {Finding.BETTER: "better", Finding.NO_DIFFERENCE: "no difference shown", Finding.WORSE: "worse"}
    counts = {word: found.findings.get(finding, 0) for finding, word in said.items()}
    counts["no claim"] = found.workloads - sum(counts.values())
    listed = ", ".join(f"{word} on {count}" for word, count in counts.items() if count)
    sentence = (
        f"One untuned run of {escape(found.candidate)} against the best-tuned baseline: {listed} of {found.workloads} "
        f"workload{'s'[: found.workloads != 1]}."
    )
    if found.same_rate_wins is not None:
        sentence += f" From the same initial rate it wins {found.same_rate_wins:.0%} of the runs."
    return sentence
