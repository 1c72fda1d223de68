"""The options of a submission: the cluster, and the job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from metalr.compare.grid import NAME


@dataclass(frozen=True)
class Cluster:
    """Describes where jobs run, and in what environment; nodes and devices are the Trainer's own arguments.

    Args:
        partition: queue of the jobs; None for the cluster's default.
        account: to charge.
        qos: quality of service.
        constraint: on the nodes, such as "h100".
        time: limit, minutes, 1 or more.
        cpus_per_task: cores of each process, loader workers included.
        mem_gb: memory of each node, GB; None for the cluster's default.
        gpu: kind of GPU by the cluster's name; None for any. Their number is the Trainer's `devices`.
        container: image that the job runs in (pyxis' `--container-image`); None for none.
        mounts: of the container, each "outside:inside".
        setup: shell lines to run before the command, such as "module load cuda" or "export NCCL_DEBUG=INFO".
        grace: seconds before the time limit at which a job is signalled, to save and be requeued.
        parallel: largest number of cells of a `compare` that run at a time.
        extra: other options of sbatch by their long names.

    Raises:
        ValueError: for a number below 1, or mounts without a container.

    Example:
        >>> from metalr.cluster.options import Cluster
        >>> Cluster(partition="gpu", time=240, setup=["module load cuda"], extra={"exclusive": True}).parallel
        16
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
    """Describes how the command after `--` is submitted.

    Args:
        cluster: options of the cluster; on the command line a YAML, such as configs/cluster/slurm.yaml.
        name: of the job and of its folder.
        folder: parent of the jobs' folders, with their logs and checkpoints; all nodes must see it.
        dry_run: whether to print what would be submitted rather than submit it.
        follow: whether to print the job's log as it grows, until the job ends.

    Raises:
        ValueError: for a name that cannot be a folder's.

    Example:
        >>> from metalr.cluster.options import Cluster, Submission
        >>> Submission(Cluster(partition="gpu"), name="bert-sst2", dry_run=True).folder
        'logs/submit'
    """

    cluster: Cluster = field(default_factory=Cluster)
    name: str = "metalr"
    folder: str = "logs/submit"
    dry_run: bool = False
    follow: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name={self.name!r}: give letters, digits, '.', '_', '+' and '-'")
