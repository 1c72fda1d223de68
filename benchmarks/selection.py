"""Scores a policy on the held-out tasks that chose it, and on fresh instances of the same tasks.

    OMP_NUM_THREADS=1 python -m benchmarks.selection default \
        --configs+=configs/meta/{base,tasks/small_data,heldout/networks,heldout/small_data,default_small_data}.yaml

The score on a policy's card is the best of some dozen evaluations of one set of instances, so it flatters the policy by
what instances differ. Here the instances are sampled anew from each of some seeds; 1 is the seed of those that chose.
Prints a line for each, and the mean and range of the fresh ones.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import torch
from jsonargparse import auto_cli

from metalr import LRPolicy
from metalr.cli import MetaLRCLI


def main(policy: str, *, configs: list[str], seeds: list[int] | None = None) -> None:
    """Scores a policy on each seed's instances.

    Args:
        policy: shipped name or file.
        configs: the merged files of the meta-training whose held-out tasks are scored.
        seeds: of the instances; by default the one that chose and three fresh ones.
    """
    options = [f"--config={path}" for path in configs]
    made = MetaLRCLI(args=[*options, "--model.init_args.init_from=null"], run=False)
    learned = LRPolicy.load(policy)
    fresh = []
    for seed in seeds or [1, 2, 3, 4]:
        tasks = [replace(task, seed=seed) for task in made.datamodule.heldout]
        scores = [task.score(learned, learned.anytime, torch.device("cpu")) for task in tasks]
        total, median, worst = (fmean(float(getattr(s, part)) for s in scores) for part in ("total", "median", "worst"))
        kind = "chose it" if seed == 1 else "fresh"
        print(f"seed {seed} ({kind}): {total:.3f}  (median {median:.3f}, worst {worst:.3f})", flush=True)
        fresh += [total] if seed != 1 else []
    if fresh:
        print(f"{policy}_selection_score_fresh: {fmean(fresh):.3f}, {min(fresh):.3f} to {max(fresh):.3f}")


if __name__ == "__main__":
    auto_cli(main)
