"""Data modules of the experiments, each usable by `class_path` from YAML: `class_path: datamodules.DigitsDataModule`.

They read the Hugging Face hub, local folders, or data that scikit-learn bundles; they may import `metalr`, and are not
in the wheel.
"""

from datamodules.adult import AdultDataModule
from datamodules.cifar10 import CIFAR10DataModule
from datamodules.digits import DigitsDataModule
from datamodules.glue import GLUEDataModule
from datamodules.imagenet import ImageNetDataModule
from datamodules.language_modeling import LanguageModelingDataModule
from datamodules.squad import SQuADDataModule

__all__ = [
    "AdultDataModule",
    "CIFAR10DataModule",
    "DigitsDataModule",
    "GLUEDataModule",
    "ImageNetDataModule",
    "LanguageModelingDataModule",
    "SQuADDataModule",
]
