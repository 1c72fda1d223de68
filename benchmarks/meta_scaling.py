"""What more inner steps bring: policies of a chain of meta-trainings on fresh instances of held-out tasks.

    OMP_NUM_THREADS=1 python -m benchmarks.meta_scaling --sources '[default,logs/meta_default_wide_more]' --docs docs

The score is that of the model cards, 0 being the best-tuned cosine. Every policy has the same instances, of seeds that
no meta-training looks at, so that the differences between policies vary less than the scores. With Lightning's
`EMAWeightAveraging` a checkpoint's policy is the average of the weights. What is measured already is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

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
    *("default_wide", "default_wide_more"),
)


class Candidate(NamedTuple):
    """Holds a policy that is scored.

    Attributes:
        name: of its file, or of its run with the meta-step.
        inner_steps: that made it, those of earlier runs among them.
        policy: itself.
    """

    name: str
    inner_steps: int
    policy: LRPolicy


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


def policy_of(checkpoint: Path, like: LRPolicy) -> tuple[LRPolicy, int]:
    """Returns a checkpoint's policy, which has the features and layers of another, and its inner steps."""
    state: dict[str, Any] = torch.load(checkpoint, weights_only=True)["state_dict"]
    policy, prefix = LRPolicy(like.features, like.hidden), "policy."
    policy.load_state_dict({name.removeprefix(prefix): part for name, part in state.items() if name.startswith(prefix)})
    return policy, int(state["inner_steps"])


def candidates(source: str, every: int, like: LRPolicy) -> Iterator[Candidate]:
    """Yields what a source has: a policy, or the checkpoints of a run.

    Args:
        source: a shipped policy's name, a file of one, or the folder with a run's versions.
        every: take each checkpoint of a run whose meta-step is a multiple of this, and the last.
        like: a policy with the features and layers of those in the checkpoints.
    """
    if not Path(source).is_dir():
        policy = LRPolicy.load(source)
        yield Candidate(Path(source).stem, int(policy.card["inner_steps"]), policy)
        return
    *earlier, last = checkpoints(Path(source))
    for path in (*(each for each in earlier if meta_step_of(each) % every == 0), last):
        policy, inner_steps = policy_of(path, like)
        yield Candidate(f"{Path(source).name} {meta_step_of(path)}", inner_steps, policy)


def score_rows(policy: LRPolicy, tasks: Sequence[HeldOutTask], at: Row) -> Iterator[Row]:
    """Yields a policy's row of each held-out task: `at`, and its score at the median and at the worst rate."""
    for task in tasks:
        score = task.score(policy, policy.anytime, torch.device("cpu"), compiled=True)
        yield at | {"task": task.name, "median": f"{float(score.median):.5f}", "worst": f"{float(score.worst):.5f}"}


def total_of(row: Row) -> float:
    """Computes the total score of such a row."""
    return float(HeldOutScore(*(torch.tensor(float(row[part])) for part in ("median", "worst"))).total)


def mean_change(changes: Sequence[float]) -> tuple[float, float]:
    """Computes the mean, and half the width of its 95 % interval."""
    return fmean(changes), 1.96 * stdev(changes) / len(changes) ** 0.5


def main(
    sources: Sequence[str],
    every: int = 50,
    seeds: Sequence[int] = (2, 3, 4),
    configs: Sequence[str] = CONFIGS,
    docs: Path = Path("results/meta_scaling"),
) -> None:
    """Scores policies and the checkpoints of meta-trainings; writes `meta-scaling.csv` and `.png`.

    Args:
        sources: shipped policies, files of policies, and folders with the versions of a meta-training. All are compared
            with the one that has the fewest inner steps.
        every: score each checkpoint of a meta-training whose meta-step is a multiple of this, and the last.
        seeds: of the instances, other than 1, which meta-trainings look at.
        configs: files of configs/meta that the last meta-training merges, without their suffix.
        docs: folder of the files.
    """
    learner, data = configured(configs, "--model.init_args.init_from=null")
    chosen = [each for source in sources for each in candidates(source, every, learner.policy)]
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "meta-scaling.csv"
    rows = read(path)
    done = {(row["fingerprint"], row["seed"]) for row in rows}
    for seed in seeds:
        fresh = [replace(task, seed=seed) for task in data.heldout]
        for name, inner_steps, policy in tqdm(chosen, desc=f"seed {seed}"):
            key = {"fingerprint": policy.fingerprint(), "seed": str(seed)}
            if tuple(key.values()) in done:
                continue
            at = {"policy": name, "inner_steps": str(inner_steps)}
            rows.extend(score_rows(policy, fresh, at | key))
            write(rows, path)
    for line in table(rows):
        print(line)
    plot(rows, docs / "meta-scaling.png")


class Compared(NamedTuple):
    """Holds a policy's score beside that of the first.

    Attributes:
        name: of the policy.
        inner_steps: that made it.
        score: mean over tasks and seeds.
        change: mean change of the score since the first policy, on the same instances.
        width: half of the change's 95 % interval over tasks and seeds.
    """

    name: str
    inner_steps: int
    score: float
    change: float
    width: float


def compared(rows: Sequence[Row]) -> list[Compared]:
    """Compares each policy with the one of the fewest inner steps, in their order."""
    totals: dict[tuple[int, str], dict[tuple[str, str], float]] = {}
    for row in rows:
        at = int(row["inner_steps"]), row["policy"]
        totals.setdefault(at, {})[row["task"], row["seed"]] = total_of(row)
    first = totals[min(totals)]
    found = []
    for (inner_steps, name), own in sorted(totals.items()):
        change = mean_change([total - first[cell] for cell, total in own.items()])
        found.append(Compared(name, inner_steps, fmean(own.values()), *change))
    return found


def table(rows: Sequence[Row]) -> list[str]:
    """Writes the comparison as the lines of a table."""
    lines = ["| policy | million inner steps | score | change since the first policy |", "|---|---|---|---|"]
    for each in compared(rows):
        steps = f"{each.inner_steps / 1e6:.1f}"
        lines.append(f"| {each.name} | {steps} | {each.score:.3f} | {each.change:+.3f} ± {each.width:.3f} |")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the change of the score over inner steps, with its intervals."""
    found = compared(rows)
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    steps = [each.inner_steps / 1e6 for each in found]
    axes.errorbar(steps, [each.change for each in found], [each.width for each in found], fmt="o-", capsize=3)
    axes.axhline(0.0, color="0.5", linewidth=0.8)
    axes.set_xscale("log")
    axes.minorticks_off()
    axes.set_xticks(steps, [f"{each:.0f}" for each in steps])
    axes.set_xlabel("million inner steps, those of earlier runs among them")
    axes.set_ylabel("change of the score, lower is better")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
