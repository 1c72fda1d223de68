"""The nodes and devices that a command uses, read from its Trainer arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Holds the nodes and devices of a run, one process a device.

    Attributes:
        nodes: number of nodes, the Trainer's `num_nodes`.
        devices: number on each node, the Trainer's `devices`.
        gpus: whether the devices are GPUs.
    """

    nodes: int
    devices: int
    gpus: bool

    @classmethod
    def of(cls, trainer: Any, auto: int | None = None) -> Shape:
        """Reads the shape from parsed Trainer arguments.

        Args:
            trainer: arguments with `num_nodes`, `devices` and `accelerator`.
            auto: number that devices="auto" stands for; None to refuse "auto".

        Raises:
            ValueError: for devices that are not a number: a login node cannot count those of another node.
        """
        devices = trainer.devices if auto is None or trainer.devices != "auto" else auto
        if isinstance(devices, str) and devices.isdecimal():
            devices = int(devices)
        if isinstance(devices, (list, tuple)):
            devices = len(devices)
        if not isinstance(devices, int) or devices < 1:
            raise ValueError(
                f"trainer.devices={trainer.devices!r}: a job needs their number; give --trainer.devices 1 or more"
            )
        return cls(int(trainer.num_nodes), devices, gpus=trainer.accelerator != "cpu")
