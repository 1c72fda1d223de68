"""What each feature is worth: meta-train a small policy without it, and score that on held-out tasks.

    OMP_NUM_THREADS=1 python -m benchmarks.ablation --docs docs

Every finished training is a line in OUT/ablation.jsonl and is not repeated. Prints a table, and plots it: the change
of the held-out score (lower is better) when a feature is left out, mean over seeds, beside the standard deviation over
seeds of the score with all features, below which a change is not significant.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import matplotlib
import torch
from jsonargparse import auto_cli
from tqdm import tqdm

from benchmarks.denormals import flushed_denormals
from benchmarks.short_meta_training import meta_train
from metalr.core import features as core_features
from metalr.core.validation_loss import VALIDATION_FEATURES
from metalr.meta import ActionES, Component, HeldOutTask, MetaTasksDataModule
from metalr.meta.families import AutoencoderTasks, MLPTasks, QuadraticTasks, TransformerTasks

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FEATURES = tuple(name for name in core_features.FEATURES if name not in VALIDATION_FEATURES)
"""All but those of a validation loss, which these trainings do not show."""

ALL = "none"
"""Name of the training that leaves nothing out."""


@dataclass(frozen=True)
class Budget:
    """Sets the size of one training.

    Attributes:
        meta_steps: of 64 inner runs each.
        horizons: of the inner runs, steps.
        seeds: trainings for each feature that is left out.
    """

    meta_steps: int = 80
    horizons: tuple[int, int] = (60, 200)
    seeds: int = 2


def heldout() -> list[HeldOutTask]:
    """Makes held-out tasks of kinds that the small trainings lack, and of digits, of which they have others."""
    digits = MLPTasks(sources=("digits",))
    return [
        HeldOutTask("autoencoder_sgd", AutoencoderTasks(), "sgd"),
        HeldOutTask("autoencoder_adam", AutoencoderTasks(), "adam"),
        HeldOutTask("digits_sgd", digits, "sgd"),
        HeldOutTask("digits_adam", digits, "adam"),
        HeldOutTask("transformer_adam", TransformerTasks(), "adam", total_steps=100, instances=2, rates=6),
    ]


def score(without: str, seed: int, budget: Budget, tasks: list[HeldOutTask]) -> float:
    """Trains a policy without a feature, and returns its held-out score."""
    families = {"mlp": MLPTasks(train_sizes=(512, 1024)), "quadratic": QuadraticTasks()}
    components = {name: Component(family, horizons=budget.horizons) for name, family in families.items()}
    components["mlp"].weight = 5.0
    data = MetaTasksDataModule(components, optimizers={"sgd": 1, "adam": 1}, seed=seed)
    features = [name for name in FEATURES if name != without]
    learner = meta_train(data, budget.meta_steps, features=features, estimator=ActionES(), compiled=True, seed=seed)
    scores = [task.score(learner.policy, True, torch.device("cpu")).total for task in tasks]
    return float(torch.stack(scores).mean())


def _read(path: Path) -> dict[tuple[str, int], float]:
    """Reads scores by the feature left out and the seed; a training whose line is incomplete is repeated."""
    rows = [line for line in path.read_text().splitlines() if line.endswith("}")] if path.is_file() else []
    return {(row["without"], row["seed"]): row["score"] for row in map(json.loads, rows)}


def _table(scores: dict[tuple[str, int], float], seeds: int) -> list[tuple[str, float, list[float]]]:
    """Lists (feature, mean change of the score, changes by seed), the most useful feature first."""
    rows = []
    for name in FEATURES:
        changes = [scores[name, s] - scores[ALL, s] for s in range(seeds) if {(name, s), (ALL, s)} <= scores.keys()]
        if changes:
            rows.append((name, fmean(changes), changes))
    return sorted(rows, key=lambda row: -row[1])


def _plot(rows: list[tuple[str, float, list[float]]], spread: float, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 0.28 * len(rows) + 1.2), layout="constrained")
    names = [name for name, _, _ in rows][::-1]
    axes.axvspan(-spread, spread, color="0.9", label="spread over seeds with all features (1 standard deviation)")
    axes.barh(names, [mean for _, mean, _ in rows][::-1], color="#0072B2", alpha=0.8)
    for height, (_, _, changes) in enumerate(rows[::-1]):
        axes.plot(changes, [height] * len(changes), ".", color="#D55E00", markersize=5)
    axes.axvline(0.0, color="0.3", linewidth=0.8)
    axes.set_xlabel("change of the held-out score without it (above 0: it is useful); dots: seeds")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=100)


def main(
    out: Path = Path("results/ablation"),
    docs: Path | None = None,
    budget: Budget = Budget(),
    only: Sequence[str] | None = None,
) -> None:
    """Makes the missing trainings, prints the table and plots it.

    Args:
        out: folder of the results.
        docs: folder of the plot; by default that of the results.
        budget: of one training.
        only: features to leave out in this run ("none" for the training with all of them), so that several processes
            can share the work; all by default. The table has all results in the folder.
    """
    unknown = set(only or ()) - {ALL, *FEATURES}
    if unknown:
        raise ValueError(f"only={only}: unknown {', '.join(sorted(unknown))}; choose of {', '.join((ALL, *FEATURES))}")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "ablation.jsonl"
    scores, tasks = _read(path), heldout()
    chosen = only or (ALL, *FEATURES)
    todo = [(name, s) for s in range(budget.seeds) for name in chosen if (name, s) not in scores]
    for name, seed in tqdm(todo, desc="trainings"):
        with flushed_denormals():
            found = score(name, seed, budget, tasks)
        with path.open("a") as file:
            file.write(json.dumps({"without": name, "seed": seed, "score": found}) + "\n")
    scores = _read(path)  # with those of other processes
    everything = [scores[ALL, seed] for seed in range(budget.seeds) if (ALL, seed) in scores]
    if not everything:
        return
    spread = stdev(everything) if len(everything) > 1 else 0.0
    rows = _table(scores, budget.seeds)
    print(f"held-out score with all features: {fmean(everything):.3f} (spread over seeds {spread:.3f})\n")
    print("| left out | change of the score | by seed |\n|---|---|---|")
    for name, mean, changes in rows:
        print(f"| {name} | {mean:+.3f} | {', '.join(f'{change:+.3f}' for change in changes)} |")
    _plot(rows, spread, (docs or out) / "ablation.png")


if __name__ == "__main__":
    auto_cli(main)
