"""Whether the validation loss pays as an input: of two policies with the same budget, one reads it and one does not.

    OMP_NUM_THREADS=1 python -m benchmarks.validation_loss

Both begin at the shipped `default` and go on with its meta-training on small data sets, which perceptrons memorise, on
the same task batches; in three quarters of them a validation loss is shown. Both are scored on instances that no
meta-training has seen, on samples that are never shown. Finished policies are in OUT and are not made again.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from jsonargparse import auto_cli
from torch import Tensor
from tqdm import tqdm

from metalr import LRPolicy
from metalr.core.validation_loss import VALIDATION_FEATURES
from metalr.meta import MLP, ActionES, Component, HeldOutTask, MetaLearner, MetaTasksDataModule
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
    """Meta-trains the policy of one arm, or reads it where that has been done."""
    path = out / f"{arm}-{seed}.safetensors"
    if path.is_file():
        return LRPolicy.load(path)
    learner = MetaLearner(
        init_from="default",
        features=[*LRPolicy.load("default").features, *(VALIDATION_FEATURES if arm == "with" else ())],
        estimator=ActionES(pairs=budget.pairs, sigma=0.4, squash="log"),
        optimizer=lambda params: torch.optim.Adam(params, lr=3e-3, betas=(0.9, 0.99)),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, budget.meta_steps),
        final_weight=0.75,
        seed=seed,
        support_batches=1,
    )
    component = Component(Memorised(), horizons=budget.horizons)
    data = MetaTasksDataModule({"mlp": component}, optimizers={"sgd": 1, "adam": 1}, seed=seed, validated=0.75)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=budget.meta_steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, data)
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
    """Computes logs of the final validation losses and of the best along the run, (2, instances), mean over rates."""
    runs = task.runs(policy, False, torch.device("cpu"))
    logs = torch.stack((runs.curve[-1], runs.curve.amin(0))) + runs.initial.log()
    return logs.view(2, task.rates, task.instances).mean(1)


def _table(found: dict[str, dict[float | None, Tensor]]) -> Iterator[str]:
    """Yields a line for each interval: losses over those of `default`, with the standard error over instances."""
    yield f"| shown every | {' | '.join(f'{name}, final | {name}, best' for name in found)} |"
    yield f"|{'---|' * (1 + 2 * len(found))}"
    for share in INTERVALS:
        parts = ["never" if share is None else f"T/{round(1 / share)}"]
        for logs in found.values():
            difference = logs[share] - found["default"][share][0]
            errors = difference.std(1) / difference.shape[1] ** 0.5
            pairs = zip(difference.mean(1).exp().tolist(), errors.tolist(), strict=True)
            parts += [f"{mean:.3f} ± {error:.3f}" for mean, error in pairs]
        yield f"| {' | '.join(parts)} |"


def main(out: Path = Path("results/validation_loss"), budget: Budget = Budget()) -> None:
    """Makes the missing policies, tests all of them and prints the table.

    Args:
        out: folder of the policies.
        budget: of the comparison.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_flush_denormal(True)
    out.mkdir(parents=True, exist_ok=True)
    policies = {"default": LRPolicy.load("default")}
    for seed in range(budget.seeds):
        policies |= {f"{arm} {seed}": trained(arm, seed, budget, out) for arm in ARMS}
    found: dict[str, dict[float | None, Tensor]] = {}
    for name, policy in tqdm(policies.items(), desc="tests"):
        by_interval: dict[float | None, list[Tensor]] = {share: [] for share in INTERVALS}
        for share, task in cells(budget):
            by_interval[share].append(tested(policy, task))
        found[name] = {share: torch.cat(logs, 1) for share, logs in by_interval.items()}
    print("\n".join(_table(found)))


if __name__ == "__main__":
    auto_cli(main)
