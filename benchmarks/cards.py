"""Writes the development suite's figures on the cards of the shipped policies.

    python -m benchmarks.cards

The figures are those of docs/heldout.json, which `python -m benchmarks.heldout --docs docs` writes.
"""

from __future__ import annotations

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks.suites.estimates import Estimate
from benchmarks.suites.figures import NETWORKS, TREES
from benchmarks.suites.page import ranged
from metalr import LRPolicy, shipped_policies
from metalr.meta.ship import FACTS, WEIGHTS, ship

FOUND = Path(__file__).resolve().parents[1] / "docs" / "heldout.json"
COMMAND = "python -m benchmarks.heldout --docs docs"


def check_measured() -> None:
    """Checks that the suite's runs are of the policies that are shipped.

    Raises:
        ValueError: for a policy that is not; it names the command.
    """
    with FOUND.with_suffix(".csv").open(newline="") as file:
        measured = {row["policy"].partition("-")[0] for row in csv.DictReader(file)}
    for name in shipped_policies():
        if LRPolicy.load(name).fingerprint() not in measured:
            raise ValueError(f"{FOUND.name} has no run of {name!r}: {COMMAND} first")


def card_figures(policy: str, found: dict[str, Any]) -> dict[str, str]:
    """Collects the figures of a shipped policy: over the networks' cells, or over those of boosted trees.

    Args:
        policy: name.
        found: the suite's figures, as JSON.
    """
    learned, is_boosting = "anytime" if "anytime" in policy else "default", policy.startswith("boosting")
    known = found["splits"][TREES] if is_boosting else found["splits"][NETWORKS] | found["figures"]
    return {
        name: f"{ranged(each)} of {each.cells} cells"
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
    found = json.loads(FOUND.read_text())
    for name in shipped_policies():
        policy, page = LRPolicy.load(name), (WEIGHTS / f"{name}.md").read_text()
        policy.card = {key: value for key, value in policy.card.items() if key in FACTS}
        with tempfile.TemporaryDirectory() as folder:
            source, figures = Path(folder) / "policy.safetensors", Path(folder) / "figures.txt"
            policy.save(source)
            lines = [f"{key}: {value}" for key, value in card_figures(name, found).items()]
            figures.write_text("\n".join([COMMAND, *lines]))
            ship(
                str(source),
                name,
                command=policy.card["command"],
                commit=policy.card["commit"],
                limits=page.partition("## Where it fails\n\n")[2].strip(),
                figures=[str(figures)],
            )


if __name__ == "__main__":
    auto_cli(main)
