"""What the tests of images and tables share: the folder of real data."""

from pathlib import Path

from tests.text import DATA as FOLDER
from tests.text import datasets_cache, needs_data, write_dataset

DATA = Path(FOLDER)
ROOT = Path(__file__).resolve().parents[1]

__all__ = ["DATA", "ROOT", "datasets_cache", "needs_data", "small_cifar10"]


def small_cifar10(folder: Path, rows: int = 500) -> str:
    """The first images of the real CIFAR-10."""
    from datamodules.hub import load

    return write_dataset(folder, {"train": load(str(DATA / "cifar10"), None, "train").select(range(rows))})
