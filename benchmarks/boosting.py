"""One boosting round through BoostedTrees beside one of `xgboost.train`: `python -m benchmarks.boosting <folder>`.

Prints milliseconds of CPU time a round, one thread, the better of interleaved runs, and their ratio: for
`xgboost.train` with its built-in objective, for the module's own loop, and for a whole fit through the Trainer.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable

import lightning as L
import torch
import torch.nn.functional as F
import xgboost

from datamodules.adult import AdultDataModule, Arrays
from models.boosted_trees import BoostedTrees
from models.boosting import Boosting


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


def main() -> None:
    """Prints the three figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="folder of UCI Adult, or a hub id")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    data = AdultDataModule(args.path)
    data.prepare_data()
    data.setup("fit")
    train = data.arrays("train")
    runs: dict[str, Callable[[], None]] = {
        "xgboost.train": lambda: _reference(train, args.rounds),
        "module": lambda: _loop(train, args.rounds),
        "Trainer.fit": lambda: _fit(data, args.rounds),
    }
    times = {name: min(_milliseconds(run, args.rounds) for _ in range(2)) for name, run in runs.items()}
    for _ in range(args.repeats):
        times = {name: min(times[name], _milliseconds(run, args.rounds)) for name, run in runs.items()}
    print(f"{len(train.labels):,} rows, {train.features.shape[1]} columns, {args.rounds} rounds, one thread")
    for name, value in times.items():
        print(f"{name:14s} {value:7.2f} ms a round   {value / times['xgboost.train']:.2f} x")


if __name__ == "__main__":
    main()
