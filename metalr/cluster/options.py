"""What a cluster is told of a job beside what the Trainer's own arguments say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metalr.compare.grid import NAME


@dataclass(frozen=True)
class Cluster:
    """Where jobs run, and in what environment.

    Args:
        partition: queue; None for the cluster's default.
        account: that is charged.
        qos: quality of service.
        constraint: on the nodes, such as "h100".
        time: limit, minutes.
        cpus_per_task: cores of each process, loader workers among them.
        mem_gb: memory of each node; None for the cluster's default.
        gpu: kind of GPU, as the cluster names it; None for any. How many there are is the Trainer's `devices`.
        container: image that the job runs in (pyxis' `--container-image`); None for none.
        mounts: of the container, each "outside:inside".
        setup: lines of shell in front of the command, such as "module load cuda" or "export NCCL_DEBUG=INFO".
        grace: seconds before the time limit at which a job is told, so that it saves and is queued again.
        parallel: cells of a `compare` that run at once.
        extra: other options of sbatch, by their long names.

    Raises:
        ValueError: for a number that is not positive.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: int = 60
    cpus_per_task: int = 1
    mem_gb: float | None = None
    gpu: str | None = None
    container: str | None = None
    mounts: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    grace: int = 60
    parallel: int = 16
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("time", "cpus_per_task", "grace", "parallel"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"cluster.{name}={value}: give 1 or more")
        if self.mounts and self.container is None:
            raise ValueError(f"cluster.mounts={self.mounts} without cluster.container: there is nothing to mount in")


@dataclass(frozen=True)
class Submission:
    """What is done with the command after `--`.

    Args:
        cluster: a YAML, such as configs/cluster/slurm.yaml.
        name: of the job; names its folder, too.
        folder: that gets a folder for each job, with its logs and checkpoints; all nodes have to see it.
        dry_run: whether to print what would be submitted, and to submit nothing.
        follow: whether to print the job's log as it grows, until the job ends.

    Raises:
        ValueError: for a name that is none for a folder.
    """

    cluster: Cluster = field(default_factory=Cluster)
    name: str = "metalr"
    folder: str = "logs/submit"
    dry_run: bool = False
    follow: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r}: give letters, digits, '.', '_', '+' and '-'")
