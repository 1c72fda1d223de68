"""What the cluster's tests train: it notes each step's rate, and takes its time where it is asked to."""

import time
from pathlib import Path
from typing import Any

import torch
import yaml

from metalr.cli import MetaLRCLI
from tests.compare.problem import CONFIG, Line, Points

__all__ = ["Points", "Slow", "fit_config", "rates", "uninterrupted"]


def fit_config(steps: int, *callbacks: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    """A fit of `Slow` by DDP under MetaLR, with callbacks beside MetaLR's and arguments of the Trainer."""
    given = {"max_epochs": -1, "max_steps": steps, "strategy": "ddp", "enable_progress_bar": False}
    given |= {"callbacks": [{"class_path": "metalr.MetaLRCallback"}, *callbacks]}
    return {
        "model": {"class_path": "tests.cluster.problem.Slow"},
        "data": {"class_path": "tests.cluster.problem.Points"},
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}},
        "trainer": CONFIG["trainer"] | given | trainer,
    }


class Slow(Line):
    """`Line` that writes "step rate weight" of each step to rates.txt in the Trainer's folder, after the step."""

    def __init__(self, lr: float = 0.1, seconds: float = 0.0, die_on_rank: int = -1, once: str = "") -> None:
        super().__init__(lr)
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 1))  # nothing that is drawn: Lightning stores no generator
        self.seconds, self.die_on_rank, self.once = seconds, die_on_rank, once

    def on_train_batch_end(self, outputs, batch, batch_idx):
        time.sleep(self.seconds)
        if (
            self.global_rank == self.die_on_rank
            and self.global_step == 13
            and not (self.once and Path(self.once).exists())
        ):
            if self.once:
                Path(self.once).touch()
            raise RuntimeError("made to die")
        if self.global_rank == 0:
            rate = self.optimizers().param_groups[0]["lr"]
            weight = float(self.layers[0].weight.detach().sum())
            with (Path(self.trainer.default_root_dir) / "rates.txt").open("a") as file:
                file.write(f"{self.global_step} {rate!r} {weight!r}\n")


def uninterrupted(folder: Path, config: dict[str, Any]) -> dict[int, str]:
    """What each step of the same fit notes on two ranks that this process forks."""
    folder.mkdir()
    (folder / "fit.yaml").write_text(yaml.safe_dump(config))
    ranks = ["--trainer.num_nodes=1", "--trainer.devices=2", "--trainer.strategy=ddp_fork"]
    MetaLRCLI(args=["fit", f"--config={folder / 'fit.yaml'}", f"--trainer.default_root_dir={folder}", *ranks])
    return rates(folder)


def rates(folder: Path) -> dict[int, str]:
    """What each step noted last, by the step."""
    path = folder / "rates.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    return {int(step): rest for step, _, rest in (line.partition(" ") for line in lines)}
