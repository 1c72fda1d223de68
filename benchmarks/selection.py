"""Scores the shipped policies on fresh instances of the held-out tasks of their last meta-training.

    OMP_NUM_THREADS=1 python -m benchmarks.selection --docs docs

The score on a policy's card is of instances that the meta-training looked at, so it flatters the policy by what
instances differ. Here they are sampled anew from each of some seeds; 1 is the seed of those that were looked at. What
is measured already of a policy with this fingerprint is kept. `python -m benchmarks.cards` puts mean and range on the
cards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.meta_configs import configured
from benchmarks.rows import Row, read, write
from metalr import LRPolicy, shipped_policies
from metalr.meta import HeldOutTask

LOOKED_AT = 1
"""Seed of the instances that a meta-training looks at."""

_TREES = (
    *("base", "tasks/boosted_trees_classes"),
    *("heldout/boosted_trees", "heldout/boosted_classes", "heldout/boosted_objectives"),
)

LAST_RUNS = {
    "default": (
        *("base", "tasks/wide", "heldout/networks", "heldout/small_data", "heldout/wide"),
        *("default_wide", "default_wide_more", "default_wide_fine"),
    ),
    "anytime": (
        *("base", "tasks/broad", "heldout/networks", "heldout/small_data", "heldout/dropout_and_masked"),
        "anytime_annealed",
    ),
    "boosting": (*_TREES, "boosting", "boosting_more", "boosting_validated"),
    "boosting_anytime": (*_TREES, "boosting_anytime", "boosting_anytime_more"),
}
"""Files of configs/meta that the last meta-training of each shipped policy merges."""


def heldout_tasks(policy: str) -> list[HeldOutTask]:
    """Reads the held-out tasks of a shipped policy's last meta-training."""
    _, data = configured(LAST_RUNS[policy], "--model.init_args.init_from=null")
    return data.heldout


def scored(policy: str, seed: int) -> Row:
    """Scores a shipped policy on one seed's instances."""
    learned = LRPolicy.load(policy)
    tasks = [replace(task, seed=seed) for task in heldout_tasks(policy)]
    scores = [
        task.score(learned, learned.anytime, torch.device("cpu")) for task in tqdm(tasks, desc=f"{policy}, seed {seed}")
    ]
    means = {part: fmean(float(getattr(score, part)) for score in scores) for part in ("total", "median", "worst")}
    named = {"policy": policy, "fingerprint": learned.fingerprint(), "seed": str(seed), "tasks": str(len(tasks))}
    return named | {part: f"{value:.5f}" for part, value in means.items()}


def fresh(rows: Iterable[Mapping[str, str]], policy: str) -> str:
    """Writes the mean and the range of a policy's scores on fresh instances, as its card has them.

    Raises:
        ValueError: for a policy that has not been measured.
    """
    own = [row for row in rows if row["policy"] == policy and int(row["seed"]) != LOOKED_AT]
    values = [float(row["total"]) for row in own if row["fingerprint"] == LRPolicy.load(policy).fingerprint()]
    if not values:
        raise ValueError(f"selection.csv has no fresh instances of {policy!r}: python -m benchmarks.selection first")
    return f"{fmean(values):.4f} ({min(values):.4f} to {max(values):.4f}) of {len(values)} seeds"


def main(
    policies: Sequence[str] | None = None,
    seeds: Sequence[int] = (LOOKED_AT, 2, 3, 4),
    docs: Path = Path("results/selection"),
) -> None:
    """Scores what has not been scored yet, and writes `selection.csv`.

    Args:
        policies: shipped names; all by default.
        seeds: of the instances.
        docs: folder of the file.

    Raises:
        ValueError: for a name that is not shipped.
    """
    unknown = set(policies or ()) - set(LAST_RUNS)
    if unknown:
        raise ValueError(f"policies={policies}: choose of {', '.join(LAST_RUNS)}")
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "selection.csv"
    known = {name: LRPolicy.load(name).fingerprint() for name in shipped_policies()}
    rows = [row for row in read(path) if row["fingerprint"] == known.get(row["policy"])]
    for policy in policies or LAST_RUNS:
        for seed in seeds:
            if any((row["policy"], int(row["seed"])) == (policy, seed) for row in rows):
                continue
            rows.append(scored(policy, seed))
            write(sorted(rows, key=lambda row: (list(LAST_RUNS).index(row["policy"]), int(row["seed"]))), path)
    for policy in dict.fromkeys(row["policy"] for row in rows):
        print(f"{policy}_selection_score_fresh: {fresh(rows, policy)}")


if __name__ == "__main__":
    auto_cli(main)
