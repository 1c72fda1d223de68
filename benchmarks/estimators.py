"""Variance of the gradient estimators at equal inner steps.

    OMP_NUM_THREADS=1 python -m benchmarks.estimators

Each estimator makes the same number of inner steps on the same task batches of one family. Printed for each:

- signal: |mean|^2 of the estimates, without bias; below zero there is no measurable signal;
- noise: trace of the covariance of the estimates;
- signal/noise of one estimate, which does not depend on an estimator's scale;
- agreement: cosine between the means of the two halves of the estimates;
- milliseconds for 1,000 inner steps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from jsonargparse import auto_cli
from torch import Tensor
from tqdm import tqdm

from metalr import LRPolicy
from metalr.meta import (
    NRES,
    PES,
    ActionES,
    Component,
    Episode,
    FullES,
    GradientEstimator,
    TaskDistribution,
    TaskFamily,
    TruncatedBackprop,
)
from metalr.meta.families import MLPTasks
from metalr.meta.moments import GradientMoments

ESTIMATORS: dict[str, GradientEstimator] = {
    "ActionES": ActionES(),
    "ActionES, not squashed": ActionES(squash="none"),
    "FullES": FullES(),
    "FullES, not squashed": FullES(squash="none"),
    "PES, 4 truncations": PES(truncations=4),
    "NRES, 4 truncations": NRES(truncations=4),
    "backpropagation, 16 truncations": TruncatedBackprop(pairs=64, truncations=16),
    "backpropagation, 4 truncations": TruncatedBackprop(pairs=64, truncations=4),
}


def estimates(
    estimator: GradientEstimator, policy: LRPolicy, distribution: TaskDistribution, indices: Sequence[int]
) -> tuple[Tensor, float, int]:
    """Makes an estimate on each task batch, summed over its truncations: (D, n); seconds; inner steps."""
    gradients, steps = [], 0
    start = time.perf_counter()
    for index in tqdm(indices, desc=type(estimator).__name__, leave=False):
        batch = distribution.sample(index, estimator.pairs)
        episode = Episode(batch.task, batch.inner, seed=(index,))
        total = torch.zeros(policy.size)
        while not episode.done:
            estimate = estimator.estimate(policy, episode)
            total += estimate.gradient
            steps += estimate.inner_steps
        gradients.append(total)
    return torch.stack(gradients), time.perf_counter() - start, steps


def main(
    policy: str | None = None,
    family: TaskFamily | None = None,
    horizon: int = 100,
    batches: int = 24,
    seed: int = 0,
    only: Sequence[str] | None = None,
) -> None:
    """Prints the table.

    Args:
        policy: a policy file or shipped name; an untrained policy without one.
        family: of tasks, perceptrons by default.
        horizon: steps of the inner runs.
        batches: number of task batches, and of estimates of each estimator.
        seed: of the task batches.
        only: names of the table's rows; all by default.
    """
    unknown = set(only or ()) - set(ESTIMATORS)
    if unknown:
        raise ValueError(f"only={only}: unknown {', '.join(sorted(unknown))}; choose of {', '.join(ESTIMATORS)}")
    made = LRPolicy() if policy is None else LRPolicy.load(policy).requires_grad_(True)
    component = Component(family or MLPTasks(), horizons=(horizon, horizon))
    distribution = TaskDistribution({"task": component}, optimizers={"sgd": 1, "adam": 1}, reparameterised=0, seed=seed)
    print("| estimator | signal | noise | signal/noise | agreement | ms / 1,000 steps |\n|---|---|---|---|---|---|")
    for name in only or ESTIMATORS:
        estimator = ESTIMATORS[name]
        gradients, seconds, steps = estimates(estimator, made, distribution, range(batches))
        moments = GradientMoments()
        for gradient in gradients:
            moments.add(gradient)
        found = moments.signal_noise()
        halves = torch.cosine_similarity(gradients[::2].mean(0), gradients[1::2].mean(0), dim=0)
        print(
            f"| {name} | {found.signal:.3g} | {found.noise:.3g} | {found.ratio:.4f} | {float(halves):.2f} "
            f"| {1e6 * seconds / steps:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    auto_cli(main)
