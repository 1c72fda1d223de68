"""Values as text: the one place that formats what a report says, and that escapes it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from metalr.compare.analysis import Claim, Entrant, Finding
from metalr.compare.design import Objective
from metalr.compare.metrics import Interval, Summary

NONE = "–"
"""Stands where there is no value."""

Escape = Callable[[str], str]


@dataclass(frozen=True)
class Number:
    """Holds a number with its significant digits and its unit."""

    value: float
    digits: int = 4
    unit: str = ""


@dataclass(frozen=True)
class Steps:
    """Holds steps to a threshold; infinity where it was not reached."""

    value: float


@dataclass(frozen=True)
class Count:
    """Holds how many of how many."""

    part: int
    whole: int


@dataclass(frozen=True)
class Share:
    """Holds a share in [0, 1], of a whole where that has a value."""

    value: float
    whole: float | None = None


@dataclass(frozen=True)
class Span:
    """Holds the ends of a range."""

    low: Number
    high: Number


@dataclass(frozen=True)
class Direction:
    """Names a metric and which way is better."""

    metric: str
    mode: str

    @classmethod
    def of(cls, workload: Objective) -> Direction:
        """Names the metric that decides on a workload."""
        return cls(workload.metric, workload.mode)


Single = (
    str | int | float | None | Number | Steps | Count | Share | Span | Direction | Summary | Interval | Finding | Claim
)
Value = Single | tuple[Single, ...]
"""What a table's cell holds; a tuple is shown with commas between."""


def unescaped(name: str) -> str:
    """Gives a name as it is, for an output that escapes by itself."""
    return name


def show(value: Value, escape: Escape = unescaped) -> str:
    """Formats a value; names go through `escape`.

    Example:
        >>> show(("digits", Direction("val/loss", "min"), Number(0.123456, 3)))
        'digits, val/loss ↓, 0.123'
    """
    if isinstance(value, tuple):
        return ", ".join(show(each, escape) for each in value)
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, Direction):
        return f"{escape(value.metric)} {'↓' if value.mode == 'min' else '↑'}"
    if isinstance(value, Claim):
        return verdict_of(value)
    return _shown(value)


def _shown(value: Single) -> str:
    """Formats what has no name in it."""
    if value is None:
        return NONE
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Number):
        return number(value.value, value.digits) + (f" {value.unit}" if value.unit else "")
    if isinstance(value, Steps):
        return "> end" if math.isinf(value.value) else f"{value.value:.0f}"
    if isinstance(value, Count):
        return f"{value.part} of {value.whole}"
    if isinstance(value, Share):
        return f"{value.value:.0%}" + ("" if value.whole is None else f" of {value.whole:.2g}")
    if isinstance(value, Span):
        return f"{_shown(value.low)} to {_shown(value.high)}"
    if isinstance(value, Interval):
        return f"[{value.low:.4g}, {value.high:.4g}]"
    if isinstance(value, Summary):
        return number(value.mean) + ("" if math.isnan(value.sd) else f" ± {value.sd:.2g}")
    raise TypeError(f"value={value!r}: no way to show a {type(value).__name__}")


def number(value: float, digits: int = 4) -> str:
    """Formats a figure: a dash where there is none, "diverged" where it is infinite."""
    if math.isnan(value):
        return NONE
    return "diverged" if math.isinf(value) else f"{value:.{digits}g}"


def entrant(which: Entrant) -> str:
    """Names a schedule and how its rate was chosen."""
    how = "untuned (1 run)" if which.tuned_over is None else f"tuned ({which.tuned_over:.3g} runs)"
    return f"{which.schedule}, {how}"


def verdict_of(claim: Claim) -> str:
    """States what a claim's test shows of the first."""
    return {
        Finding.BETTER: "better",
        Finding.WORSE: "worse",
        Finding.NO_DIFFERENCE: "no difference shown",
        Finding.TOO_FEW_SEEDS: f"{claim.paired.n} common seed: no claim",
        Finding.DIVERGED: "a run diverged: no interval, no claim",
    }[claim.finding]


def claim(found: Claim) -> str:
    """States what a claim's test shows of the first, with the difference and its interval."""
    if found.paired.interval is None:
        return verdict_of(found)
    return f"{verdict_of(found)}, {number(found.paired.difference, 3)} {show(found.paired.interval)}"


_SPECIAL = re.compile(r"[\\`*<>\[\]|~&#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def markdown(text: str) -> str:
    """Escapes a name for a line of Markdown: it is shown as it is, in a table's cell too."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def fenced(text: str, language: str = "") -> str:
    """Puts text in a code block that nothing in it can end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
