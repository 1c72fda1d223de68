"""One boosting round through BoostedTrees beside one of `xgboost.train`.

    python -m benchmarks.boosting --data $METALR_DATA

Prints milliseconds of CPU time a round, one thread, the better of interleaved runs, and their ratio: for
`xgboost.train` with its built-in objective, for the module's own loop, and for a whole fit through the Trainer.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
import xgboost
from jsonargparse import auto_cli

from datamodules import AdultDataModule
from datamodules.adult import Arrays
from models import BoostedTrees, Boosting


class _Fit(BoostedTrees):
    def configure_optimizers(self) -> Boosting:
        return Boosting(self.parameters())


def _reference(train: Arrays, rounds: int) -> None:
    rows = xgboost.DMatrix(
        train.features,
        train.labels,
        feature_names=train.names,
        feature_types=train.types,
        enable_categorical=True,
    )
    params = {"objective": "binary:logistic", "base_score": float(train.labels.mean()), "tree_method": "hist"}
    xgboost.train(params | {"max_depth": 6, "learning_rate": 0.1, "nthread": 1}, rows, rounds)


def _loop(train: Arrays, rounds: int) -> None:
    model = BoostedTrees()
    model.attach(*train)
    optimizer = Boosting(model.parameters())
    for _ in range(rounds):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model.margins, model.labels).backward()
        optimizer.step()


def _fit(data: AdultDataModule, rounds: int) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(_Fit(rounds), datamodule=data)


def _milliseconds(run: Callable[[], None], rounds: int) -> float:
    start = time.process_time()
    run()
    return (time.process_time() - start) / rounds * 1e3


def main(data: Path, rounds: int = 100, repeats: int = 7) -> None:
    """Prints the three figures.

    Args:
        data: folder with `adult` in the hub's layout.
        rounds: trees of each run.
        repeats: runs of each, in turn.
    """
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    module = AdultDataModule(str(data / "adult"))
    module.prepare_data()
    module.setup("fit")
    train = module.arrays("train")
    runs: dict[str, Callable[[], None]] = {
        "xgboost.train": lambda: _reference(train, rounds),
        "module": lambda: _loop(train, rounds),
        "Trainer.fit": lambda: _fit(module, rounds),
    }
    times = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        times = {name: min(times[name], _milliseconds(run, rounds)) for name, run in runs.items()}
    print(f"{len(train.labels):,} rows, {train.features.shape[1]} columns, {rounds} rounds, one thread")
    for name, value in times.items():
        print(f"{name:14s} {value:7.2f} ms a round   {value / times['xgboost.train']:.2f} x")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
