"""The meta-training tasks, under the name that the configs of the shipped policies know."""

from metalr.meta.datamodule import MetaTasksDataModule

__all__ = ["MetaTasksDataModule"]
