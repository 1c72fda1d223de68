"""Writes the suites' figures and the selection scores on the cards of the shipped policies.

    python -m benchmarks.cards

The figures are those of docs/heldout.json and docs/final.json, which `python -m benchmarks.heldout --docs docs` and
`python -m benchmarks.final --docs docs` write, and the scores those of docs/selection.csv.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks import selection
from benchmarks.rows import read
from benchmarks.suites.estimates import Estimate
from benchmarks.suites.figures import NETWORKS, TREES
from benchmarks.suites.page import ranged
from metalr import LRPolicy, shipped_policies
from metalr.meta.ship import FACTS, WEIGHTS, ship

DOCS = Path(__file__).resolve().parents[1] / "docs"
SUITES = {"heldout": "", "final": "final_"}
"""The suites by the names of their files, and what the names of their figures begin with on a card."""


def command_of(suite: str) -> str:
    """Gives the command that writes a suite's figures."""
    return f"python -m benchmarks.{suite} --docs docs"


def check_measured() -> None:
    """Checks that the suites' runs are of the policies that are shipped.

    Raises:
        ValueError: for a policy that is not; it names the command.
    """
    for suite in SUITES:
        with (DOCS / f"{suite}.csv").open(newline="") as file:
            measured = {row["policy"].partition("-")[0] for row in csv.DictReader(file)}
        for name in shipped_policies():
            if LRPolicy.load(name).fingerprint() not in measured:
                raise ValueError(f"{suite}.csv has no run of {name!r}: {command_of(suite)} first")


def card_figures(policy: str, suite: str) -> dict[str, str]:
    """Collects the figures of a shipped policy in a suite: over the networks' cells, or over those of boosted trees.

    Args:
        policy: name.
        suite: name.
    """
    found: dict[str, Any] = json.loads((DOCS / f"{suite}.json").read_text())
    learned, is_boosting = "anytime" if "anytime" in policy else "default", policy.startswith("boosting")
    known = found["splits"][TREES] if is_boosting else found["splits"][NETWORKS] | found["figures"]
    return {
        f"{SUITES[suite]}{name}": f"{ranged(each)} of {each.cells} cells"
        for name, value in known.items()
        if name.startswith(f"{learned}_")
        for each in [Estimate(**value)]
    }


def main() -> None:
    """Writes the figures into the policies and onto their pages, in place of those of before.

    Raises:
        ValueError: for figures of other policies.
    """
    check_measured()
    scores = read(DOCS / "selection.csv")
    for name in shipped_policies():
        policy, page = LRPolicy.load(name), (WEIGHTS / f"{name}.md").read_text()
        facts = {key: value for key, value in policy.card.items() if key in FACTS}
        policy.card = facts | {"heldout_fresh": selection.fresh(scores, name)}
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "policy.safetensors"
            policy.save(source)
            blocks = []
            for suite in SUITES:
                lines = [f"{key}: {value}" for key, value in card_figures(name, suite).items()]
                blocks.append(Path(folder) / f"{suite}.txt")
                blocks[-1].write_text("\n".join([command_of(suite), *lines]))
            ship(
                str(source),
                name,
                command=policy.card["command"],
                commit=policy.card["commit"],
                limits=page.partition("## Where it fails\n\n")[2].strip(),
                figures=list(map(str, blocks)),
            )


if __name__ == "__main__":
    auto_cli(main)
