"""Data modules of the experiments, each usable by class_path from YAML."""

from datamodules.digits import DigitsDataModule
from datamodules.meta_tasks import MetaTasksDataModule

__all__ = ["DigitsDataModule", "MetaTasksDataModule"]
