"""The tables that an inspection prints: a policy's card, its features and responses, and its decisions in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from rich.table import Table
from rich.text import Text

from metalr.core.policy import LRPolicy
from metalr.inspection.response import Responses
from metalr.inspection.trace import Trace
from metalr.plotting.palette import PALETTE

_BARS = "▁▂▃▄▅▆▇█"
_CELLS = 17


def card(policy: LRPolicy, name: str) -> Table:
    """Returns a table of a policy's facts and its card."""
    mode = "anytime: no horizon needed" if policy.anytime else "with a horizon, about a cosine reference"
    facts = {
        "mode": mode,
        "reads": f"{len(policy.features)} features",
        "network": f"MLP {'-'.join(map(str, policy.hidden))}, ReLU: {policy.size:,} weights",
        "fingerprint": policy.fingerprint(),
        "support": "recorded" if policy.support.is_bounded else "not recorded: no state counts as out-of-distribution",
    }
    return _facts(f"policy {name}", facts | policy.card)


def schema(policy: LRPolicy, found: Responses) -> Table:
    """Returns a table of the features that a policy reads, each with its range and response, strongest first."""
    table = Table(
        title="its features, and its response to each",
        caption="response: median change as a share of the largest allowed, from the smallest value of the feature to "
        "the largest, with the others as in meta-training; swing: its range; orange raises the rate, blue lowers it",
    )
    for header in ("feature", "range", "response", "low", "high", "swing"):
        table.add_column(header, justify="left" if header in ("feature", "response") else "right", no_wrap=True)
    for i in np.argsort(-found.swings, kind="stable"):
        curve = found.curves[i, 1]
        low, high = found.grid[i, 0], found.grid[i, -1]
        ends = (_signed(curve[0]), _signed(curve[-1]))
        table.add_row(found.features[i], f"{low:.1f}…{high:.1f}", spark(curve), *ends, f"{found.swings[i]:.2f}")
    return table


def run(trace: Trace) -> Table:
    """Returns a table of what happened to the rate in a run."""
    last, multiplier = len(trace) - 1, np.exp(trace.log_multiplier)
    acted = {name: int(trace.counts[last, i]) for i, name in enumerate(trace.guards)}
    facts = {
        "optimizer steps": f"{trace.step[last] + 1:,} ({len(trace):,} recorded)",
        "rate": f"{trace.lr[0]:.3g} at the first step, {trace.lr[last]:.3g} at the last, {trace.lr.max():.3g} at most",
        "rate over its reference": f"{multiplier.min():.3g} to {multiplier.max():.3g} times",
        "guards": ", ".join(f"{name} {count:,} times" for name, count in acted.items() if count) or "none acted",
        **{f"reached {mark.label}": f"after {mark.step:,} steps" for mark in trace.marks},
    }
    return _facts("run", facts)


def attributions(trace: Trace) -> Table:
    """Returns a table of the share of each feature in what moved the rate, largest first."""
    table = Table(
        title="what moved the rate",
        caption="share: of the sum of |contribution| over the bound; raised, lowered: share of the recorded decisions",
    )
    for header in ("feature", "share", "", "raised", "lowered"):
        table.add_column(header, justify="left" if header in ("feature", "") else "right", no_wrap=True)
    shares = trace.shares
    for i in np.argsort(-shares, kind="stable"):
        up, down = (trace.contributions[:, i] > 0).mean(), (trace.contributions[:, i] < 0).mean()
        bar = Text("█" * round(40 * float(shares[i])), PALETTE[0])
        table.add_row(trace.features[i], f"{shares[i]:.1%}", bar, f"{up:.0%}", f"{down:.0%}")
    return table


def spark(curve: Iterable[float]) -> Text:
    """Draws a curve in [-1, 1] as a line of text: orange above zero, blue below."""
    values = np.asarray(list(curve))
    chosen = values[np.linspace(0, len(values) - 1, _CELLS).round().astype(int)]
    text = Text()
    for value in chosen:
        level = min(int((value + 1.0) / 2.0 * len(_BARS)), len(_BARS) - 1)
        text.append(_BARS[level], PALETTE[0] if value > 0 else PALETTE[4])
    return text


def _signed(value: float) -> Text:
    return Text(f"{value:+.2f}", PALETTE[0] if value > 0 else PALETTE[4])


def _facts(title: str, facts: Mapping[str, str]) -> Table:
    table = Table(title=title, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table
