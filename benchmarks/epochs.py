"""Whether the number of epochs pays as an input: of two policies with the same budget, one reads it and one does not.

    OMP_NUM_THREADS=1 python -m benchmarks.epochs

Both begin at the shipped `default` and go on with perceptrons of two kinds on the same task batches: some have so few
samples that they are memorised, the others more than a run sees twice. Three quarters of the task batches say how many
steps make an epoch. Both policies are scored on instances that no meta-training has seen, that which reads epochs with
and without being told. Finished policies are in OUT and are not made again.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import torch
from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.rows import Row, write
from benchmarks.short_meta_training import meta_train
from benchmarks.validation_loss import Memorised, tested
from metalr import LRPolicy
from metalr.core.features import EPOCH_FEATURES
from metalr.meta import ActionES, Component, HeldOutTask, MetaTasksDataModule, TaskFamily
from metalr.meta.families import MLPTasks

ARMS = ("without", "with")
"""Whether the policy reads the number of epochs."""


def families() -> dict[str, TaskFamily]:
    """Makes the two kinds of perceptrons, by how many samples they have."""
    return {"few": Memorised(), "many": MLPTasks(sources=("teacher", "clusters"), train_sizes=(8192,))}


@dataclass(frozen=True)
class Budget:
    """Sets the size of the comparison.

    Attributes:
        meta_steps: of each meta-training.
        task_batches: of a meta-step, of both kinds alike.
        pairs: of inner runs of a task batch.
        horizons: of the inner runs, steps.
        seeds: meta-trainings of each arm.
        tested: horizons of the held-out runs, steps.
        instances: of each cell of the test.
    """

    meta_steps: int = 120
    task_batches: int = 8
    pairs: int = 16
    horizons: tuple[int, int] = (60, 400)
    seeds: int = 2
    tested: tuple[int, ...] = (200, 600)
    instances: int = 12


def trained(arm: str, seed: int, budget: Budget, out: Path) -> LRPolicy:
    """Makes the policy of one arm, or reads it where that has been done."""
    path = out / f"{arm}-{seed}.safetensors"
    if path.is_file():
        return LRPolicy.load(path)
    components = {name: Component(family, horizons=budget.horizons) for name, family in families().items()}
    data = MetaTasksDataModule(components, optimizers={"sgd": 1, "adam": 1}, seed=seed, stratified=True)
    learner = meta_train(
        data,
        budget.meta_steps,
        init_from="default",
        features=[*LRPolicy.load("default").features, *(EPOCH_FEATURES if arm == "with" else ())],
        estimator=ActionES(pairs=budget.pairs, sigma=0.4),
        final_weight=0.75,
        seed=seed,
        support_batches=1,
        task_batches=budget.task_batches,
    )
    learner.policy.save(path)
    return learner.policy.requires_grad_(False)


def cells(budget: Budget) -> Iterator[tuple[str, str, HeldOutTask]]:
    """Yields the number of samples, whether epochs are told, and the held-out task: the same instances for both."""
    for (samples, family), total_steps, optimizer in product(families().items(), budget.tested, ("sgd", "adam")):
        for told in ("told", "not told"):
            task = HeldOutTask(
                f"fresh_{samples}_{optimizer}_{total_steps}",
                family,
                optimizer,
                total_steps,
                budget.instances,
                rates=3,
                decades=3.0,
                seed=1002,
                epochs_known=told == "told",
            )
            yield samples, told, task


def rows_of(policies: Mapping[tuple[str, int], LRPolicy], budget: Budget) -> Iterator[Row]:
    """Yields a row for each policy and instance; the policy that reads no epochs has the same runs when told."""
    for (arm, seed), policy in tqdm(policies.items(), desc="tests"):
        for samples, told, task in cells(budget):
            for instance, final in enumerate(tested(policy, task).tolist()):
                place = {"samples": samples, "epochs": told, "task": task.name, "instance": str(instance)}
                yield {"arm": arm, "seed": str(seed), **place, "log_final": f"{final:.5f}"}


def compared(rows: Sequence[Row]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Compares the arms on the same instances.

    Returns:
        By seed, samples and whether epochs are told: the geometric mean over instances of the final loss with,
        over that without; and the half-width of its 95 % interval, in logs.
    """
    finals = {tuple(row.values())[:6]: float(row["log_final"]) for row in rows}
    found: dict[tuple[str, str, str], list[float]] = {}
    for (arm, seed, samples, told, *instance), final in finals.items():
        if arm == "with":
            other = ("without", seed, samples, told, *instance)
            found.setdefault((seed, samples, told), []).append(final - finals[other])
    return {
        place: (math.exp(mean(changes)), 1.96 * stdev(changes) / len(changes) ** 0.5)
        for place, changes in found.items()
    }


def table(rows: Sequence[Row]) -> list[str]:
    """Writes the comparison as the lines of a table: a column for each meta-seed."""
    found = compared(rows)
    seeds, places = list(dict.fromkeys(key[0] for key in found)), list(dict.fromkeys(key[1:] for key in found))
    lines = [f"| samples | epochs | {' | '.join(f'seed {seed}' for seed in seeds)} |", f"|{'---|' * (2 + len(seeds))}"]
    for place in places:
        entries = (f"{ratio:.3f} ± {ratio * width:.3f}" for ratio, width in (found[(seed, *place)] for seed in seeds))
        lines.append(f"| {' | '.join(place)} | {' | '.join(entries)} |")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws the comparison with its intervals."""
    figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
    found = compared(rows)
    seeds, places = list(dict.fromkeys(key[0] for key in found)), list(dict.fromkeys(key[1:] for key in found))
    for shift, (seed, marker) in enumerate(zip(seeds, "os^D", strict=False)):
        ratios, widths = zip(*(found[(seed, *place)] for place in places), strict=True)
        heights = [height + 0.15 * shift for height in range(len(places))]
        errors = [ratio * width for ratio, width in zip(ratios, widths, strict=True)]
        axes.errorbar(ratios, heights, xerr=errors, fmt=marker, capsize=3, label=f"meta-seed {seed}")
    axes.axvline(1.0, color="0.5", linewidth=0.8)
    axes.set_yticks(range(len(places)), [f"{samples} samples, {told}" for samples, told in places])
    axes.invert_yaxis()
    axes.set_xlabel("final validation loss, reading epochs over not reading them")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(out: Path = Path("results/epochs"), docs: Path | None = None, budget: Budget = Budget()) -> None:
    """Makes the missing policies, tests all of them, and prints, stores and plots the table.

    Args:
        out: folder of the policies.
        docs: folder of `epochs.csv` and its plot; by default that of the policies.
        budget: of the comparison.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    policies = {(arm, seed): trained(arm, seed, budget, out) for seed in range(budget.seeds) for arm in ARMS}
    rows = list(rows_of(policies, budget))
    path = (docs or out) / "epochs.csv"
    write(rows, path)
    plot(rows, path.with_suffix(".png"))
    print("\n".join(table(rows)))


if __name__ == "__main__":
    auto_cli(main)
