"""What the files of configs/meta make, without training it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from metalr.cli import MetaLRCLI
from metalr.meta import MetaLearner, MetaTasksDataModule

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "meta"


def configured(configs: Sequence[str], *options: str) -> tuple[MetaLearner, MetaTasksDataModule]:
    """Makes the learner and the tasks of a meta-training.

    Args:
        configs: files of configs/meta that it merges, without their suffix.
        options: of the command line, after them.
    """
    made = MetaLRCLI(args=[*(f"--config={FOLDER / name}.yaml" for name in configs), *options], run=False)
    return made.model, made.datamodule
