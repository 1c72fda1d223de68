"""Whether the validation loss pays as an input: of two policies with the same budget, one reads it and one does not.

    OMP_NUM_THREADS=1 python -m benchmarks.validation_loss

Both begin at the shipped `default` and go on with its meta-training on small data sets, which perceptrons memorise, on
the same task batches; in three quarters of them a validation loss is shown. Both are scored on instances that no
meta-training has seen, on samples that are never shown. Finished policies are in OUT and are not made again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import auto_cli

from benchmarks import two_arms
from metalr import LRPolicy
from metalr.core.validation_loss import VALIDATION_FEATURES
from metalr.meta import MLP, ActionES, Component, HeldOutTask, MetaTasksDataModule
from metalr.meta.families import MLPTasks

COMPARISON = two_arms.Comparison(
    "validation-loss",
    heads={"shown": "shown every"},
    label="shown {shown}",
    axis="final validation loss of the policy that reads it, over that of the other",
)

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
    component = Component(Memorised(), horizons=budget.horizons)
    return two_arms.trained(
        MetaTasksDataModule({"mlp": component}, optimizers={"sgd": 1, "adam": 1}, seed=seed, validated=0.75),
        budget.meta_steps,
        VALIDATION_FEATURES if arm == "with" else (),
        seed,
        out / f"{arm}-{seed}.safetensors",
        estimator=ActionES(pairs=budget.pairs, sigma=0.4, squash="log"),
    )


def cells(budget: Budget) -> Iterator[two_arms.Cell]:
    """Yields the held-out tasks, each at every interval of the shown losses."""
    for share in INTERVALS:
        shown = "never" if share is None else f"T/{round(1 / share)}"
        for total_steps in budget.tested:
            for optimizer in ("sgd", "adam"):
                interval = None if share is None else max(1, round(share * total_steps))
                name = f"fresh_{optimizer}_{total_steps}"  # a part of the seed: the same instances at every interval
                yield (
                    {"shown": shown},
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


def main(out: Path = Path("results/validation_loss"), docs: Path | None = None, budget: Budget = Budget()) -> None:
    """Makes the missing policies, tests all of them, and prints, stores and plots the table.

    Args:
        out: folder of the policies.
        docs: folder of `validation-loss.csv` and its plot; by default that of the policies.
        budget: of the comparison.
    """
    COMPARISON.run(lambda arm, seed: trained(arm, seed, budget, out), budget.seeds, cells(budget), out, docs)


if __name__ == "__main__":
    auto_cli(main)
