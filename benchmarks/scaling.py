"""How meta-training grows with ranks: measured on one and two processes here, and modelled beyond.

    OMP_NUM_THREADS=1 python -m benchmarks.scaling

Strong scaling shares a fixed number of task batches out over the ranks, and its efficiency is one rank's time over R
times that of R ranks; weak scaling gives each rank as many, and its efficiency is one rank's time with its own task
batches over that of R ranks: measured where ms are. A meta-step of R ranks is modelled as

    t(R) = fixed + per_batch * batches / R + reduce(R),    reduce(R) = 2 log2(R) latency + 2 bytes / bandwidth,

fixed and per_batch from one rank with two numbers of task batches, bytes those of one gradient for each task batch,
which is all that a step reduces beside their losses. Latency and bandwidth between nodes are assumed, see `main`; the
model is checked against the two processes measured. Times are core seconds of the first rank, so that other work on
the machine changes them little.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import lightning as L
import torch
from jsonargparse import auto_cli

from metalr.meta import ActionES, Component, MetaLearner, MetaTasksDataModule
from metalr.meta.families import MLPTasks

BYTES = 4


class Clock(L.Callback):
    """Notes when each meta-step ends."""

    def __init__(self, path: Path) -> None:
        self.path, self.times = path, [0.0]

    def on_train_batch_start(self, trainer: L.Trainer, *_: object) -> None:
        """Notes the start of the first step."""
        if trainer.global_step == 0:
            self.times = [time.process_time()]

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Notes the median of the steps so far, but for the first."""
        self.times.append(time.process_time())
        if trainer.is_global_zero and len(self.times) > 2:
            steps = [b - a for a, b in zip(self.times[1:], self.times[2:], strict=False)]
            self.path.write_text(repr(median(steps)))


def measure(batches: int, ranks: int, pairs: int, horizon: int, steps: int) -> float:
    """Measures the core seconds of a meta-step."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock(Path(folder) / "seconds")
        family = MLPTasks(sources=("clusters",), train_sizes=(512,))
        data = MetaTasksDataModule({"mlp": Component(family, horizons=(horizon, horizon))}, heldout=[])
        several = {"strategy": "ddp_fork", "devices": ranks} if ranks > 1 else {"devices": 1}
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            limit_val_batches=0,
            enable_checkpointing=False,
            default_root_dir=folder,
            callbacks=[clock],
            **several,
            **quiet,
        )
        trainer.fit(
            MetaLearner(estimator=ActionES(pairs=pairs), support_batches=1, task_batches=batches), datamodule=data
        )
        return float(clock.path.read_text())


@dataclass(frozen=True)
class Model:
    """Models a meta-step's seconds.

    Attributes:
        fixed: whatever the number of task batches.
        per_batch: for each task batch of a rank.
        latency: of one message between nodes, s.
        bandwidth: between nodes, bytes/s.
        weights: of the policy.
    """

    fixed: float
    per_batch: float
    latency: float
    bandwidth: float
    weights: int

    def seconds(self, batches: int, ranks: int) -> float:
        """Predicts the seconds of a meta-step of so many task batches in all."""
        size = BYTES * self.weights * batches
        reduce = 2 * math.log2(ranks) * self.latency + 2 * size / self.bandwidth if ranks > 1 else 0.0
        return self.fixed + self.per_batch * math.ceil(batches / ranks) + reduce


def main(
    batches: int = 2,
    pairs: int = 32,
    horizon: int = 100,
    steps: int = 24,
    latency: float = 2e-5,
    bandwidth: float = 1e10,
) -> None:
    """Measures, models, and prints both.

    Args:
        batches: task batches of a rank, in weak scaling, and of both of two in strong scaling; of 512 ranks, one each.
        pairs: of a task batch.
        horizon: of the inner runs, steps.
        steps: meta-steps of each measurement; the first does not count.
        latency: between nodes, seconds.
        bandwidth: between nodes, bytes a second.
    """
    if batches < 2 or batches % 2 or steps < 3:
        raise ValueError(
            f"batches={batches}, steps={steps}: give an even number of task batches and three steps or more"
        )
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    each = {"pairs": pairs, "horizon": horizon, "steps": steps}
    one, double = measure(batches, 1, **each), measure(2 * batches, 1, **each)
    per_batch = (double - one) / batches
    model = Model(one - per_batch * batches, per_batch, latency, bandwidth, MetaLearner().policy.size)
    strong = 512
    two = {"weak": measure(2 * batches, 2, **each), "strong": measure(batches, 2, **each)}
    print(f"a meta-step reduces {BYTES * model.weights:,} bytes of gradient for each task batch\n")
    print("| scaling | ranks | task batches | ms, measured | ms, modelled | efficiency |")
    print("|---|---|---|---|---|---|")
    for total, seconds in ((batches, one), (2 * batches, double)):
        print(f"| | 1 | {total} | {1e3 * seconds:.0f} | {1e3 * model.seconds(total, 1):.0f} | |")
    rows = [("strong", 2, batches, two["strong"])] + [("strong", ranks, strong, None) for ranks in (8, 64, 512)]
    rows += [("weak", ranks, batches * ranks, two["weak"] if ranks == 2 else None) for ranks in (2, 8, 64, 512)]
    for kind, ranks, total, seen in rows:
        modelled = model.seconds(total, ranks)
        alone = model.seconds(total, 1) / ranks if kind == "strong" else one
        measured = "" if seen is None else f"{1e3 * seen:.0f}"
        share = alone / (seen or modelled)
        print(f"| {kind} | {ranks} | {total} | {measured} | {1e3 * modelled:.0f} | {share:.2f} |")


if __name__ == "__main__":
    auto_cli(main)
