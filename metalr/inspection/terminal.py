"""What an inspection prints: a policy's card, what it reads and how it responds, and what it did in a run."""

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
    """What a policy is, and what its makers say of it."""
    mode = "anytime: no horizon needed" if policy.anytime else "with a horizon, about a cosine reference"
    facts = {
        "mode": mode,
        "reads": f"{len(policy.features)} features",
        "network": f"MLP {'-'.join(map(str, policy.hidden))}, ReLU: {policy.size:,} weights",
        "fingerprint": policy.fingerprint(),
        "region": "known" if policy.support.is_bounded else "not recorded: it is in its depth everywhere",
    }
    return _facts(f"policy {name}", facts | policy.card)


def schema(policy: LRPolicy, found: Responses) -> Table:
    """Every feature that a policy reads, its range, and the increment's response to it, strongest first."""
    table = Table(
        title="what it reads, and how its increment responds",
        caption="response: median increment as a share of the largest allowed, from the least value of the feature to "
        "the greatest, with the others as in states of the region; orange raises the rate, blue lowers it",
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
    """What the rate did."""
    last = len(trace) - 1
    acted = {name: int(trace.counts[last, i]) for i, name in enumerate(trace.guards)}
    facts = {
        "optimizer steps": f"{trace.step[last] + 1:,}, of which {len(trace):,} decisions are kept",
        "rate": f"{trace.lr[0]:.3g} at the first step, {trace.lr.max():.3g} at most, {trace.lr[last]:.3g} at the last",
        "over its reference": f"{np.exp(trace.log_multiplier.min()):.3g} to {np.exp(trace.log_multiplier.max()):.3g} times",
        "guards": ", ".join(f"{name} {count:,} times" for name, count in acted.items() if count) or "none acted",
        **{f"reached {mark.label}": f"after {mark.step:,} steps" for mark in trace.marks},
    }
    return _facts("run", facts)


def attributions(trace: Trace) -> Table:
    """The share of each feature in what moved s, and what it added up to."""
    table = Table(
        title="what moved the rate",
        caption="share: of the sum of |nats| over the bound; raised and lowered: steps of the decisions that are kept",
    )
    for header in ("feature", "share", "", "raised", "lowered"):
        table.add_column(header, justify="left" if header in ("feature", "") else "right", no_wrap=True)
    shares = trace.shares
    for i in np.argsort(-shares, kind="stable"):
        up, down = (trace.nats[:, i] > 0).mean(), (trace.nats[:, i] < 0).mean()
        bar = Text("█" * round(40 * float(shares[i])), PALETTE[0])
        table.add_row(trace.features[i], f"{shares[i]:.1%}", bar, f"{up:.0%}", f"{down:.0%}")
    return table


def spark(curve: Iterable[float]) -> Text:
    """A curve in [-1, 1] as a line of text: orange above zero, blue below."""
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
