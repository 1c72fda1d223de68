"""What the tests of images and tables share: the folder of real data."""

from pathlib import Path

from tests.text import DATA as FOLDER
from tests.text import datasets_cache, needs_data

DATA = Path(FOLDER)
ROOT = Path(__file__).resolve().parents[1]

__all__ = ["DATA", "ROOT", "datasets_cache", "needs_data"]
