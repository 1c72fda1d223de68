"""How far a meta-step in the direction of some task batches helps others: mean, Adam's scaling, and common descent.

    OMP_NUM_THREADS=1 python -m benchmarks.aggregation --docs docs

Gradients are estimated for many task batches of a mixture, which are then halved at random, several times. A direction
is made of one half and judged on the other, by its gain: minus the mean slope of the other half's outer losses along
it, each estimate scaled to length 1, over the root mean square change of the policy's actions in the states that the
other half's runs visit. A direction without gain helps the task batches that it was made of, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.utils import vector_to_parameters
from tqdm import tqdm

from benchmarks.meta_configs import configured
from benchmarks.rows import Row, write
from metalr import LRPolicy
from metalr.meta import ActionES, CommonDescent, Episode, Mean, TaskDistribution
from metalr.meta.visited_states import states_of

CONFIGS = ("base", "tasks/wide", "default_wide", "default_wide_more")


class Sample(NamedTuple):
    """Holds what is measured on a task batch: the gradient's estimate (n,), and the states visited (N, F)."""

    gradient: Tensor
    states: Tensor


def adam_scaled(gradients: Tensor) -> Tensor:
    """Divides the mean of the estimates, of length 1 each, by the root of their second moment, by weights: (n,)."""
    unit = F.normalize(gradients)
    return unit.mean(0) / (unit.square().mean(0).sqrt() + 1e-9)


AGGREGATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": Mean().aggregate,
    "mean of unit length": lambda gradients: F.normalize(gradients).mean(0),
    "mean of unit length, Adam's scaling": adam_scaled,
    "common descent, ridge 1e-2": CommonDescent(ridge=1e-2).aggregate,
    "common descent, ridge 1e-3": CommonDescent(ridge=1e-3).aggregate,
    "common descent, ridge 1e-4": CommonDescent(ridge=1e-4).aggregate,
    "common descent, ridge 1e-5": CommonDescent(ridge=1e-5).aggregate,
}


def sampled(policy: LRPolicy, distribution: TaskDistribution, batches: int, pairs: int, compiled: bool) -> list[Sample]:
    """Estimates the gradient of a policy on the first task batches of a distribution."""
    found = []
    for index in tqdm(range(batches), desc="estimates"):
        batch = distribution.sample(index, pairs, policy.anytime)
        states = states_of(policy, batch, copies=2, compiled=compiled)  # as the estimator's runs
        episode = Episode(batch.task, batch.inner, seed=(index,), compiled=compiled)
        estimate = ActionES(pairs=pairs).estimate(policy, episode)
        found.append(Sample(estimate.gradient.detach(), states))
    return [sample for sample in found if sample.gradient.any() and len(sample.states)]


def action_change(policy: LRPolicy, direction: Tensor, states: Sequence[Tensor]) -> float:
    """Computes the root mean square derivative of the actions along a direction (n,), task batches weighing alike."""
    weights = {name: weight.detach() for name, weight in policy.named_parameters()}
    along = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    vector_to_parameters(direction, along.values())

    def mean_square(features: Tensor) -> float:
        _, change = jvp(lambda moved: functional_call(policy, moved, (features,)), (weights,), (along,))
        return float(change.square().mean())

    return fmean(map(mean_square, states)) ** 0.5


def gain(policy: LRPolicy, descent: Tensor, judges: Sequence[Sample]) -> float:
    """Computes the gain of a step against `descent`, (n,), on other task batches."""
    slope = torch.stack([F.normalize(judge.gradient, dim=0) for judge in judges]).mean(0) @ descent
    return float(slope) / action_change(policy, descent, [judge.states for judge in judges])


def main(
    policy: str = "default",
    batches: int = 96,
    splits: int = 8,
    pairs: int = 16,
    seed: int = 77,
    configs: Sequence[str] = CONFIGS,
    compiled: bool = True,
    docs: Path = Path("results/aggregation"),
) -> None:
    """Prints the table, and writes `aggregation.csv`: the gain of each split.

    Args:
        policy: a policy file or shipped name.
        batches: number of task batches.
        splits: number of times that they are halved.
        pairs: of each estimate.
        seed: of the task batches and of the halves.
        configs: files of configs/meta that the meta-training merges, without their suffix.
        compiled: run inner steps through torch.compile.
        docs: folder of the file.
    """
    options = ("--model.init_args.init_from=null", f"--data.init_args.seed={seed}", "--data.init_args.validated=0")
    _, data = configured(configs, *options)
    learned = LRPolicy.load(policy).requires_grad_(True)
    samples = sampled(learned, data.distribution, batches, pairs, compiled)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for split in range(splits):
        order = torch.randperm(len(samples), generator=generator).tolist()
        makers, judges = ([samples[i] for i in half] for half in (order[::2], order[1::2]))
        gradients = torch.stack([sample.gradient for sample in makers])
        for name, aggregate in AGGREGATORS.items():
            found = gain(learned, aggregate(gradients), judges)
            rows.append({"aggregator": name, "split": str(split), "gain": f"{found:.5f}"})
    docs.mkdir(parents=True, exist_ok=True)
    write(rows, docs / "aggregation.csv")
    for line in table(rows):
        print(line)


def table(rows: Sequence[Row]) -> list[str]:
    """Writes mean and standard deviation of the gains over the splits, as the lines of a table."""
    lines = ["| direction | gain | standard deviation over splits |", "|---|---|---|"]
    for name in dict.fromkeys(row["aggregator"] for row in rows):
        gains = [float(row["gain"]) for row in rows if row["aggregator"] == name]
        lines.append(f"| {name} | {fmean(gains):.3f} | {stdev(gains):.3f} |")
    return lines


if __name__ == "__main__":
    auto_cli(main)
