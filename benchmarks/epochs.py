"""Whether the number of epochs pays as an input: of two policies with the same budget, one reads it and one does not.

    OMP_NUM_THREADS=1 python -m benchmarks.epochs

Both begin at the shipped `default` and go on with perceptrons of two kinds on the same task batches: some have so few
samples that they are memorised, the others more than a run sees twice. Three quarters of the task batches say how many
steps make an epoch. Both policies are scored on instances that no meta-training has seen, that which reads epochs with
and without being told. Finished policies are in OUT and are not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from jsonargparse import auto_cli

from benchmarks import two_arms
from benchmarks.validation_loss import Memorised
from metalr import LRPolicy
from metalr.core.features import EPOCH_FEATURES
from metalr.meta import ActionES, Component, HeldOutTask, MetaTasksDataModule, TaskFamily
from metalr.meta.families import MLPTasks

COMPARISON = two_arms.Comparison(
    "epochs",
    heads={"samples": "samples", "epochs": "epochs"},
    label="{samples} samples, {epochs}",
    axis="final validation loss, reading epochs over not reading them",
)


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
    components = {name: Component(family, horizons=budget.horizons) for name, family in families().items()}
    return two_arms.trained(
        MetaTasksDataModule(components, optimizers={"sgd": 1, "adam": 1}, seed=seed, stratified=True),
        budget.meta_steps,
        EPOCH_FEATURES if arm == "with" else (),
        seed,
        out / f"{arm}-{seed}.safetensors",
        estimator=ActionES(pairs=budget.pairs, sigma=0.4),
        task_batches=budget.task_batches,
    )


def cells(budget: Budget) -> Iterator[two_arms.Cell]:
    """Yields the held-out tasks, by the number of samples and whether epochs are told: the same instances for both."""
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
            yield {"samples": samples, "epochs": told}, task


def main(out: Path = Path("results/epochs"), docs: Path | None = None, budget: Budget = Budget()) -> None:
    """Makes the missing policies, tests all of them, and prints, stores and plots the table.

    Args:
        out: folder of the policies.
        docs: folder of `epochs.csv` and its plot; by default that of the policies.
        budget: of the comparison.
    """
    COMPARISON.run(lambda arm, seed: trained(arm, seed, budget, out), budget.seeds, cells(budget), out, docs)


if __name__ == "__main__":
    auto_cli(main)
