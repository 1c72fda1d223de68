"""Whether the validation loss pays as an input: of two policies with the same budget, one reads it and one does not.

    OMP_NUM_THREADS=1 python -m benchmarks.validation_loss

Both begin at the shipped `default` and go on with its meta-training on small data sets, which perceptrons memorise, on
the same task batches; in three quarters of them a validation loss is shown. Both are scored on instances that no
meta-training has seen, on samples that are never shown. Finished policies are in OUT and are not made again.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import torch
from jsonargparse import auto_cli
from torch import Tensor
from tqdm import tqdm

from benchmarks.rows import Row, write
from benchmarks.short_meta_training import meta_train
from metalr import LRPolicy
from metalr.core.validation_loss import VALIDATION_FEATURES
from metalr.meta import MLP, ActionES, Component, HeldOutTask, MetaTasksDataModule
from metalr.meta.families import MLPTasks

ARMS = ("without", "with")
"""Whether the policy reads the validation loss."""

INTERVALS = (None, 1 / 50, 1 / 10)
"""Of the shown validation losses, as shares of the horizon; None for never."""


class Memorised(MLPTasks):
    """Samples three kinds of perceptrons on few samples."""

    pool = (
        (MLP(width=32, depth=1), 32),
        (MLP(width=32, depth=2), 16),
        (MLP(width=32, depth=3, activation="gelu", norm="layer"), 32),
    )

    def __init__(self) -> None:
        super().__init__(train_sizes=(48, 96, 192))


@dataclass(frozen=True)
class Budget:
    """Sets the size of the comparison.

    Attributes:
        meta_steps: of each meta-training.
        pairs: of inner runs a meta-step.
        horizons: of the inner runs, steps.
        seeds: meta-trainings of each arm.
        tested: horizons of the held-out runs, steps.
        instances: of each cell of the test.
    """

    meta_steps: int = 60
    pairs: int = 24
    horizons: tuple[int, int] = (60, 300)
    seeds: int = 2
    tested: tuple[int, ...] = (200, 600)
    instances: int = 12


def trained(arm: str, seed: int, budget: Budget, out: Path) -> LRPolicy:
    """Makes the policy of one arm, or reads it where that has been done."""
    path = out / f"{arm}-{seed}.safetensors"
    if path.is_file():
        return LRPolicy.load(path)
    component = Component(Memorised(), horizons=budget.horizons)
    data = MetaTasksDataModule({"mlp": component}, optimizers={"sgd": 1, "adam": 1}, seed=seed, validated=0.75)
    learner = meta_train(
        data,
        budget.meta_steps,
        init_from="default",
        features=[*LRPolicy.load("default").features, *(VALIDATION_FEATURES if arm == "with" else ())],
        estimator=ActionES(pairs=budget.pairs, sigma=0.4, squash="log"),
        final_weight=0.75,
        seed=seed,
        support_batches=1,
    )
    learner.policy.save(path)
    return learner.policy.requires_grad_(False)


def cells(budget: Budget) -> Iterator[tuple[float | None, HeldOutTask]]:
    """Yields the held-out tasks, each at every interval of the shown losses."""
    for share in INTERVALS:
        for total_steps in budget.tested:
            for optimizer in ("sgd", "adam"):
                interval = None if share is None else max(1, round(share * total_steps))
                name = f"fresh_{optimizer}_{total_steps}"  # a part of the seed: the same instances at every interval
                yield (
                    share,
                    HeldOutTask(
                        name,
                        Memorised(),
                        optimizer,
                        total_steps,
                        budget.instances,
                        rates=3,
                        decades=3.0,
                        seed=1001,
                        validation_interval=interval,
                    ),
                )


def tested(policy: LRPolicy, task: HeldOutTask) -> Tensor:
    """Computes the logs of the final validation losses, (instances,), means over the rates."""
    runs = task.runs(policy, False, torch.device("cpu"))
    final: Tensor = runs.curve[-1] + runs.initial.log()
    return final.view(task.rates, task.instances).mean(0)


def rows_of(policies: Mapping[tuple[str, int], LRPolicy], budget: Budget) -> Iterator[Row]:
    """Yields a row for each policy and instance."""
    for (arm, seed), policy in tqdm(policies.items(), desc="tests"):
        for share, task in cells(budget):
            shown = "never" if share is None else f"T/{round(1 / share)}"
            for instance, final in enumerate(tested(policy, task).tolist()):
                place = {"shown": shown, "task": task.name, "instance": str(instance)}
                yield {"arm": arm, "seed": str(seed), **place, "log_final": f"{final:.5f}"}


def compared(rows: Sequence[Row]) -> dict[tuple[str, str], tuple[float, float]]:
    """Compares the arms on the same instances.

    Returns:
        By seed and interval: the geometric mean over instances of the final loss with, over that without; and the
        half-width of its 95 % interval, in logs.
    """
    finals = {tuple(row.values())[:5]: float(row["log_final"]) for row in rows}
    found: dict[tuple[str, str], list[float]] = {}
    for (arm, seed, shown, *instance), final in finals.items():
        if arm == "with":
            other = ("without", seed, shown, *instance)
            found.setdefault((seed, shown), []).append(final - finals[other])
    return {
        place: (math.exp(mean(changes)), 1.96 * stdev(changes) / len(changes) ** 0.5)
        for place, changes in found.items()
    }


def table(rows: Sequence[Row]) -> list[str]:
    """Writes the comparison as the lines of a table: a column for each meta-seed."""
    found = compared(rows)
    seeds, intervals = (list(dict.fromkeys(key[i] for key in found)) for i in range(2))
    lines = [f"| shown every | {' | '.join(f'seed {seed}' for seed in seeds)} |", f"|{'---|' * (1 + len(seeds))}"]
    for shown in intervals:
        entries = (f"{ratio:.3f} ± {ratio * width:.3f}" for ratio, width in (found[seed, shown] for seed in seeds))
        lines.append(f"| {shown} | {' | '.join(entries)} |")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the comparison with its intervals."""
    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    found = compared(rows)
    seeds, intervals = (list(dict.fromkeys(key[i] for key in found)) for i in range(2))
    for place, (seed, marker) in enumerate(zip(seeds, "os^D", strict=False)):
        ratios, widths = zip(*(found[seed, shown] for shown in intervals), strict=True)
        heights = [height + 0.15 * place for height in range(len(intervals))]
        errors = [ratio * width for ratio, width in zip(ratios, widths, strict=True)]
        axes.errorbar(ratios, heights, xerr=errors, fmt=marker, capsize=3, label=f"meta-seed {seed}")
    axes.axvline(1.0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(intervals)), [f"shown {shown}" for shown in intervals])
    axes.invert_yaxis()
    axes.set_xlabel("final validation loss of the policy that reads it, over that of the other")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(out: Path = Path("results/validation_loss"), docs: Path | None = None, budget: Budget = Budget()) -> None:
    """Makes the missing policies, tests all of them, and prints, stores and plots the table.

    Args:
        out: folder of the policies.
        docs: folder of `validation-loss.csv` and its plot; by default that of the policies.
        budget: of the comparison.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    policies = {(arm, seed): trained(arm, seed, budget, out) for seed in range(budget.seeds) for arm in ARMS}
    rows = list(rows_of(policies, budget))
    path = (docs or out) / "validation-loss.csv"
    write(rows, path)
    plot(rows, path.with_suffix(".png"))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    auto_cli(main)
