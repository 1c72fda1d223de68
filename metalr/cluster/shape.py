"""How many nodes and processes a command takes, by the Trainer's own arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Nodes and devices of a run; each device has a process.

    Attributes:
        nodes: the Trainer's `num_nodes`.
        devices: of each node, the Trainer's `devices`.
        gpus: whether they are GPUs.
    """

    nodes: int
    devices: int
    gpus: bool

    @classmethod
    def of(cls, trainer: Any, auto: int | None = None) -> Shape:
        """Of parsed arguments of the Trainer.

        Args:
            trainer: with `num_nodes`, `devices` and `accelerator`.
            auto: what devices="auto" stands for.

        Raises:
            ValueError: for devices that are no number: a login node cannot count those of another.
        """
        devices = trainer.devices if auto is None or trainer.devices != "auto" else auto
        if isinstance(devices, str) and devices.isdecimal():
            devices = int(devices)
        if isinstance(devices, (list, tuple)):
            devices = len(devices)
        if not isinstance(devices, int) or devices < 1:
            raise ValueError(
                f"trainer.devices={trainer.devices!r}: a job asks for a number; give --trainer.devices 1 or more"
            )
        return cls(int(trainer.num_nodes), devices, gpus=trainer.accelerator != "cpu")
