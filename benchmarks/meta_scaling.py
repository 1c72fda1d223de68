"""What more inner steps bring: the checkpoints of a meta-training on fresh instances of its held-out tasks.

    OMP_NUM_THREADS=1 python -m benchmarks.meta_scaling logs/meta_default_wide --docs docs

The score is that of the model cards, 0 being the best-tuned cosine. Every checkpoint has the same instances, of seeds
that no meta-training looks at, so that the differences between checkpoints vary less than the scores. With Lightning's
`EMAWeightAveraging` a checkpoint's policy is the average of the weights. What is measured already is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib.pyplot as plt
import torch
from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.meta_configs import configured
from benchmarks.rows import Row, read, write
from metalr import LRPolicy
from metalr.meta import HeldOutTask
from metalr.meta.heldout import HeldOutScore

CONFIGS = (
    *("base", "tasks/wide", "heldout/networks", "heldout/small_data", "heldout/wide"),
    *("candidates/default_wide", "candidates/default_wide_more"),
)


def meta_step_of(checkpoint: Path) -> int:
    """Reads the meta-step off the name that Lightning gives a checkpoint."""
    return int(checkpoint.stem.split("step=")[1])


def checkpoints(run: Path) -> list[Path]:
    """Lists the checkpoints of all versions of a meta-training, by their meta-steps.

    Raises:
        FileNotFoundError: where there are none.
    """
    found = sorted(run.glob("version_*/checkpoints/*step=*.ckpt"), key=meta_step_of)
    if not found:
        raise FileNotFoundError(f"run={run}: there is no version_*/checkpoints/*step=*.ckpt")
    return found


def policy_of(path: Path, like: LRPolicy) -> tuple[LRPolicy, int, int]:
    """Returns a checkpoint's policy, its meta-step and its inner steps, those of the runs before it among them.

    Args:
        path: of the checkpoint.
        like: a policy with the same features and layers.
    """
    content: dict[str, Any] = torch.load(path, weights_only=True)
    policy, prefix = LRPolicy(like.features, like.hidden), "policy."
    state = content["state_dict"]
    policy.load_state_dict({name.removeprefix(prefix): part for name, part in state.items() if name.startswith(prefix)})
    return policy, int(content["global_step"]), int(state["inner_steps"])


def scores(policy: LRPolicy, tasks: Sequence[HeldOutTask]) -> Iterator[tuple[str, float, float]]:
    """Yields the name of each held-out task, and a policy's score at the median and at the worst rate."""
    for task in tasks:
        score = task.score(policy, policy.anytime, torch.device("cpu"), compiled=True)
        yield task.name, float(score.median), float(score.worst)


def main(
    run: Path,
    every: int = 50,
    seeds: Sequence[int] = (2, 3, 4),
    configs: Sequence[str] = CONFIGS,
    docs: Path = Path("results/meta_scaling"),
) -> None:
    """Scores the policy that a meta-training begins with and its checkpoints; writes `meta-scaling.csv` and `.png`.

    Args:
        run: folder with the versions of the meta-training.
        every: score each checkpoint whose meta-step is a multiple of this, and the last.
        seeds: of the instances, other than 1, which meta-trainings look at.
        configs: files of configs/meta that the meta-training merges, without their suffix.
        docs: folder of the files.
    """
    learner, data = configured(configs)
    first = learner.policy
    *earlier, last = checkpoints(run)
    scored = [*(path for path in earlier if meta_step_of(path) % every == 0), last]
    chosen = [(first, 0, int(first.card["inner_steps"])), *(policy_of(path, first) for path in scored)]
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "meta-scaling.csv"
    rows = read(path)
    done = {(row["fingerprint"], row["seed"]) for row in rows}
    for seed in seeds:
        fresh = [replace(task, seed=seed) for task in data.heldout]
        for policy, meta_step, inner_steps in tqdm(chosen, desc=f"seed {seed}"):
            key = {"fingerprint": policy.fingerprint(), "seed": str(seed)}
            if tuple(key.values()) in done:
                continue
            at = {"meta_step": str(meta_step), "inner_steps": str(inner_steps)}
            for name, median, worst in scores(policy, fresh):
                rows.append(at | key | {"task": name, "median": f"{median:.5f}", "worst": f"{worst:.5f}"})
            write(rows, path)
    for line in table(rows):
        print(line)
    plot(rows, docs / "meta-scaling.png")


def compared(rows: Sequence[Row]) -> list[tuple[int, int, float, float, float]]:
    """Compares each policy with the one that the meta-training begins with, on the same instances.

    Returns:
        By meta-step: meta-step, inner steps, the mean score, the mean change of the score since the first policy, and
        the half-width of its 95 % interval over tasks and seeds.
    """
    totals: dict[tuple[int, int], dict[tuple[str, str], float]] = {}
    for row in rows:
        at = int(row["meta_step"]), int(row["inner_steps"])
        score = HeldOutScore(*(torch.tensor(float(row[part])) for part in ("median", "worst")))
        totals.setdefault(at, {})[row["task"], row["seed"]] = float(score.total)
    first = totals[min(totals)]
    found = []
    for (meta_step, inner_steps), own in sorted(totals.items()):
        changes = [total - first[cell] for cell, total in own.items()]
        width = 1.96 * stdev(changes) / len(changes) ** 0.5
        found.append((meta_step, inner_steps, fmean(own.values()), fmean(changes), width))
    return found


def table(rows: Sequence[Row]) -> list[str]:
    """Writes the comparison as the lines of a table."""
    lines = ["| meta-step | million inner steps | score | change since the first policy |", "|---|---|---|---|"]
    for meta_step, inner_steps, score, change, width in compared(rows):
        lines.append(f"| {meta_step} | {inner_steps / 1e6:.1f} | {score:.3f} | {change:+.3f} ± {width:.3f} |")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the change of the score over inner steps, with its intervals."""
    found = compared(rows)
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    steps = [inner_steps / 1e6 for _, inner_steps, *_ in found]
    changes, widths = [row[3] for row in found], [row[4] for row in found]
    axes.errorbar(steps, changes, yerr=widths, fmt="o-", capsize=3)
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("million inner steps, those of earlier runs among them")
    axes.set_ylabel("change of the score, lower is better")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    auto_cli(main)
