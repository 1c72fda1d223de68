"""Whether an input pays: of two policies with the same budget, one reads it and one does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.denormals import flushed_denormals
from benchmarks.rows import Row, write
from benchmarks.short_meta_training import meta_train
from metalr import LRPolicy
from metalr.core.features import EPOCH_FEATURES, VALIDATION_FEATURES
from metalr.meta import HeldOutTask, MetaTasksDataModule

ARMS = ("without", "with")
"""Whether the policy reads the input."""

Cell = tuple[Row, HeldOutTask]
"""The place of a held-out task, by the columns that the arms are compared by, and the task."""


def trained(
    data: MetaTasksDataModule, meta_steps: int, features: Sequence[str], seed: int, path: Path, **options: Any
) -> LRPolicy:
    """Makes the policy of one arm from the shipped `default`, blind to epochs and validation losses, or reads it.

    Args:
        data: task batches.
        meta_steps: of the meta-training.
        features: that the policy reads beside those of `default`.
        seed: of the meta-training.
        path: of the policy.
        options: of `metalr.meta.MetaLearner`.
    """
    if path.is_file():
        return LRPolicy.load(path)
    start = without(LRPolicy.load("default"), EPOCH_FEATURES + VALIDATION_FEATURES)
    begun = path.with_name("start.safetensors")
    start.save(begun)
    learner = meta_train(
        data,
        meta_steps,
        init_from=str(begun),
        features=[*start.features, *features],
        final_weight=0.75,
        seed=seed,
        support_batches=1,
        **options,
    )
    begun.unlink()
    learner.policy.save(path)
    return learner.policy.requires_grad_(False)


def without(policy: LRPolicy, features: Sequence[str]) -> LRPolicy:
    """Returns the policy as it is where some features are 0: it does not read them."""
    kept = [index for index, name in enumerate(policy.features) if name not in features]
    narrower = LRPolicy([policy.features[index] for index in kept], policy.hidden)
    weights = policy.layers.state_dict()
    narrower.layers.load_state_dict(weights | {"0.weight": weights["0.weight"][:, kept]})
    return narrower


def tested(policy: LRPolicy, task: HeldOutTask) -> Tensor:
    """Computes the logs of the final validation losses, (instances,), means over the rates."""
    runs = task.runs(policy, False, torch.device("cpu"))
    final: Tensor = runs.curve[-1] + runs.initial.log()
    return final.view(task.rates, task.instances).mean(0)


def rows_of(policies: Mapping[tuple[str, int], LRPolicy], cells: Sequence[Cell]) -> Iterator[Row]:
    """Yields a row for each policy, by arm and seed, and instance."""
    for (arm, seed), policy in tqdm(policies.items(), desc="tests"):
        for place, task in cells:
            for instance, final in enumerate(tested(policy, task).tolist()):
                at = {"arm": arm, "seed": str(seed), **place, "task": task.name, "instance": str(instance)}
                yield at | {"log_final": f"{final:.5f}"}


@dataclass(frozen=True)
class Comparison:
    """Compares the arms on the same instances, and shows it.

    Attributes:
        name: of the files.
        heads: of the table, by the columns of a row that make its place.
        label: of a place in the plot, a format of these columns.
        axis: what the plot shows.
    """

    name: str
    heads: Mapping[str, str]
    label: str
    axis: str

    def compared(self, rows: Sequence[Row]) -> dict[tuple[str, ...], tuple[float, float]]:
        """Compares the arms.

        Returns:
            By seed and place: the geometric mean over instances of the final loss with, over that without; and the
            half-width of its 95 % interval, in logs.
        """
        without = {_instance(row): float(row["log_final"]) for row in rows if row["arm"] == "without"}
        found: dict[tuple[str, ...], list[float]] = {}
        for row in rows:
            if row["arm"] == "with":
                place = (row["seed"], *(row[column] for column in self.heads))
                found.setdefault(place, []).append(float(row["log_final"]) - without[_instance(row)])
        return {
            place: (math.exp(mean(changes)), 1.96 * stdev(changes) / len(changes) ** 0.5)
            for place, changes in found.items()
        }

    def table(self, rows: Sequence[Row]) -> list[str]:
        """Writes the comparison as the lines of a table: a column for each meta-seed."""
        found = self.compared(rows)
        seeds, places = _axes(found)
        heads = [*self.heads.values(), *(f"seed {seed}" for seed in seeds)]
        lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for place in places:
            entries = (f"{ratio:.3f} ± {ratio * width:.3f}" for ratio, width in (found[(s, *place)] for s in seeds))
            lines.append(f"| {' | '.join(place)} | {' | '.join(entries)} |")
        return lines

    def plot(self, rows: Sequence[Row], path: Path) -> None:
        """Draws the comparison with its intervals."""
        figure, axes = plt.subplots(figsize=(6, 2.6), layout="constrained")
        found = self.compared(rows)
        seeds, places = _axes(found)
        for shift, (seed, marker) in enumerate(zip(seeds, "os^D", strict=False)):
            ratios, widths = zip(*(found[(seed, *place)] for place in places), strict=True)
            heights = [height + 0.15 * shift for height in range(len(places))]
            errors = [ratio * width for ratio, width in zip(ratios, widths, strict=True)]
            axes.errorbar(ratios, heights, xerr=errors, fmt=marker, capsize=3, label=f"meta-seed {seed}")
        axes.axvline(1.0, color="0.5", linewidth=0.8)
        labels = [self.label.format(**dict(zip(self.heads, place, strict=True))) for place in places]
        axes.set_yticks(range(len(places)), labels)
        axes.invert_yaxis()
        axes.set_xlabel(self.axis)
        axes.legend(fontsize=8)
        figure.savefig(path, dpi=100)
        plt.close(figure)

    def run(
        self,
        policy: Callable[[str, int], LRPolicy],
        seeds: int,
        cells: Iterable[Cell],
        out: Path,
        docs: Path | None = None,
    ) -> None:
        """Makes the missing policies, tests all of them, and prints, stores and plots the table.

        Args:
            policy: makes that of an arm and a seed.
            seeds: number of meta-trainings of each arm.
            cells: held-out tasks with their places.
            out: folder of the policies.
            docs: folder of the rows and of their plot; by default that of the policies.
        """
        out.mkdir(parents=True, exist_ok=True)
        with flushed_denormals():
            policies = {(arm, seed): policy(arm, seed) for seed in range(seeds) for arm in ARMS}
            rows = list(rows_of(policies, list(cells)))
        path = (docs or out) / f"{self.name}.csv"
        write(rows, path)
        self.plot(rows, path.with_suffix(".png"))
        print("\n".join(self.table(rows)))


def _instance(row: Row) -> tuple[str, ...]:
    """Names what both arms have a row of."""
    return tuple(value for column, value in row.items() if column not in ("arm", "log_final"))


def _axes(found: Mapping[tuple[str, ...], object]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Lists the seeds and the places, in the order in which they come."""
    return list(dict.fromkeys(key[0] for key in found)), list(dict.fromkeys(key[1:] for key in found))
