"""What more kinds of tasks bring: policies of equal budgets, made from few kinds of tasks and from many.

    OMP_NUM_THREADS=1 python -m benchmarks.family_scaling --docs docs

Each kind is a component of `configs/meta/tasks/wide.yaml`, and the kinds of a policy are among those of the next. All
begin at an untrained policy and take as many task batches of as many pairs over the same range of horizons. They are
scored on fresh instances of the held-out tasks of the last meta-training of `default`. The score is that of the model
cards, 0 being the best-tuned cosine. Policies that are there are not made again, nor scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import matplotlib.pyplot as plt
from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.denormals import flushed_denormals
from benchmarks.meta_configs import configured
from benchmarks.meta_scaling import mean_change, score_rows, total_of
from benchmarks.rows import Row, read, write
from benchmarks.short_meta_training import meta_train
from metalr import LRPolicy
from metalr.meta import ActionES, HeldOutTask, MetaTasksDataModule

CONFIGS = ("base", "tasks/wide", "heldout/networks", "heldout/small_data", "heldout/wide")

KINDS = (
    *("mlp", "tabular", "regression"),
    *("quadratic", "convnet", "recurrent"),
    *("mlp_few", "dropout", "finetuning", "large_batch", "sentence", "transformer"),
)
"""Components of the wide mixture, in the order in which they are added."""

COUNTS = (1, 3, 6, 12)
"""Numbers of kinds that policies are made from."""


@dataclass(frozen=True)
class Budget:
    """Sets the size of the comparison.

    Attributes:
        meta_steps: of each meta-training.
        task_batches: of a meta-step, shared out evenly over the kinds.
        pairs: of inner runs of a task batch.
        horizons: of the inner runs, steps.
        seeds: meta-trainings from each number of kinds.
        instances: seed of those that the policies are scored on.
    """

    meta_steps: int = 60
    task_batches: int = 12
    pairs: int = 12
    horizons: tuple[int, int] = (60, 240)
    seeds: int = 2
    instances: int = 2


def trained(data: MetaTasksDataModule, count: int, seed: int, budget: Budget, path: Path) -> LRPolicy:
    """Makes the policy of so many kinds, or reads it where that has been done.

    Args:
        data: with the components of all kinds.
        count: number of kinds.
        seed: of the meta-training.
        budget: its size.
        path: of the policy.
    """
    if path.is_file():
        return LRPolicy.load(path)
    of_all = data.distribution.components
    learner = meta_train(
        MetaTasksDataModule(
            {kind: replace(of_all[kind], weight=1.0, horizons=budget.horizons) for kind in KINDS[:count]},
            optimizers={"sgd": 1, "adam": 1},
            seed=seed,
            stratified=True,
        ),
        budget.meta_steps,
        estimator=ActionES(pairs=budget.pairs, sigma=0.4),
        task_batches=budget.task_batches,
        final_weight=0.75,
        seed=seed,
        support_batches=1,
        compiled=True,
    )
    learner.policy.card = {"inner_steps": str(int(learner.inner_steps))}
    learner.policy.save(path)
    return learner.policy.requires_grad_(False)


def main(
    docs: Path | None = None,
    out: Path = Path("results/family_scaling"),
    counts: Sequence[int] = COUNTS,
    budget: Budget = Budget(),
) -> None:
    """Makes and scores the policies; writes `family-scaling.csv` and `.png`, and prints the table.

    Args:
        docs: folder of the rows and of the plot; by default that of the policies.
        out: folder of the policies.
        counts: numbers of kinds, of which there are 12.
        budget: size of the comparison.

    Raises:
        ValueError: for other numbers of kinds.
    """
    if not all(1 <= count <= len(KINDS) for count in counts):
        raise ValueError(f"counts={tuple(counts)}: give numbers from 1 to {len(KINDS)}")
    _, data = configured(CONFIGS)
    fresh: list[HeldOutTask] = [replace(task, seed=budget.instances) for task in data.heldout]
    out.mkdir(parents=True, exist_ok=True)
    docs = docs or out
    docs.mkdir(parents=True, exist_ok=True)
    path = docs / "family-scaling.csv"
    rows = read(path)
    done = {row["fingerprint"] for row in rows}
    with flushed_denormals():
        for count, seed in tqdm([(count, seed) for seed in range(budget.seeds) for count in counts]):
            policy = trained(data, count, seed, budget, out / f"{count}-{seed}.safetensors")
            if policy.fingerprint() in done:
                continue
            at = {"kinds": str(count), "seed": str(seed), "inner_steps": policy.card["inner_steps"]}
            at["fingerprint"] = policy.fingerprint()
            rows.extend(score_rows(policy, fresh, at))
            write(rows, path)
    for line in table(rows):
        print(line)
    plot(rows, path.with_suffix(".png"))


@dataclass(frozen=True)
class Compared:
    """Holds the scores of the policies of so many kinds.

    Attributes:
        kinds: number of them.
        inner_steps: million of a meta-training, mean.
        score: mean over meta-seeds and tasks.
        seeds: mean over tasks, of each meta-seed.
        change: mean change since the fewest kinds, over tasks.
        width: half of the change's 95 % interval over tasks.
    """

    kinds: int
    inner_steps: float
    score: float
    seeds: tuple[float, ...]
    change: float
    width: float


def compared(rows: Sequence[Row]) -> list[Compared]:
    """Compares each number of kinds with the fewest, task by task, means over meta-seeds."""
    totals: dict[int, dict[str, dict[str, float]]] = {}
    steps: dict[int, list[float]] = {}
    for row in rows:
        kinds = int(row["kinds"])
        totals.setdefault(kinds, {}).setdefault(row["task"], {})[row["seed"]] = total_of(row)
        steps.setdefault(kinds, []).append(float(row["inner_steps"]) / 1e6)
    first = totals[min(totals)]
    found = []
    for kinds, of_task in sorted(totals.items()):
        change = mean_change([fmean(own.values()) - fmean(first[task].values()) for task, own in of_task.items()])
        names = sorted({seed for own in of_task.values() for seed in own})
        seeds = tuple(fmean(own[seed] for own in of_task.values()) for seed in names)
        found.append(Compared(kinds, fmean(steps[kinds]), fmean(seeds), seeds, *change))
    return found


def table(rows: Sequence[Row]) -> list[str]:
    """Writes the comparison as the lines of a table."""
    lines = [
        "| kinds | million inner steps | score | of each meta-seed | change since the fewest |",
        "|---|---|---|---|---|",
    ]
    for each in compared(rows):
        seeds = ", ".join(f"{score:.3f}" for score in each.seeds)
        change = f"{each.change:+.3f} ± {each.width:.3f}"
        lines.append(f"| {each.kinds} | {each.inner_steps:.1f} | {each.score:.3f} | {seeds} | {change} |")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the score over the number of kinds: the mean, and each meta-seed."""
    found = compared(rows)
    kinds = [each.kinds for each in found]
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    axes.plot(kinds, [each.score for each in found], color="#0072B2", label="mean")
    for each in found:
        axes.plot([each.kinds] * len(each.seeds), each.seeds, "o", color="#0072B2", alpha=0.5)
    axes.plot([], [], "o", color="#0072B2", alpha=0.5, label="a meta-seed")
    axes.set_xscale("log")
    axes.set_xticks(kinds, [str(count) for count in kinds])
    axes.minorticks_off()
    axes.set_xlabel("kinds of tasks in the mixture")
    axes.set_ylabel("score, lower is better")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
