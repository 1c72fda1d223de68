"""SLURM: submits through submitit, and reads states from `squeue` and `scontrol`, which need no accounting database."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metalr.cluster.options import Cluster
from metalr.cluster.shape import Shape

ALIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "STOPPED"}
"""States of a job that has not ended."""


def parameters(cluster: Cluster, shape: Shape, name: str) -> dict[str, Any]:
    """Returns the arguments of submitit's `SlurmExecutor.update_parameters`."""
    given: dict[str, Any] = {
        "job_name": name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "time": cluster.time,
        "nodes": shape.nodes,
        "ntasks_per_node": shape.devices,
        "cpus_per_task": cluster.cpus_per_task,
        "mem": None if cluster.mem_gb is None else f"{cluster.mem_gb:g}GB",
        "gres": _gpus(cluster, shape),
        "setup": cluster.setup or None,
        "srun_args": _container(cluster),
        "array_parallelism": cluster.parallel,
        # SIGUSR1 is what Lightning's SLURM plugin waits for; submitit would send SIGUSR2.
        "additional_parameters": {"signal": f"USR1@{cluster.grace}", "requeue": True} | cluster.extra,
    }
    return {key: value for key, value in given.items() if value is not None}


def _gpus(cluster: Cluster, shape: Shape) -> str | None:
    return ":".join(["gpu", *filter(None, [cluster.gpu]), str(shape.devices)]) if shape.gpus else None


def _container(cluster: Cluster) -> list[str] | None:
    if cluster.container is None:
        return None
    mounts = [f"--container-mounts={','.join(cluster.mounts)}"] if cluster.mounts else []
    return [f"--container-image={cluster.container}", *mounts]


def submit(jobs: Sequence[Callable[[], None]], folder: Path, given: dict[str, Any], array: bool) -> list[Any]:
    """Submits one job, or several as a job array.

    Args:
        jobs: callables, one a job, run in each of its processes.
        folder: for the jobs' logs.
        given: what `parameters` returned.
        array: whether to submit a job array, also of one job.

    Returns:
        submitit's jobs.

    Raises:
        RuntimeError: where `sbatch` is missing, or the cluster refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise RuntimeError("sbatch is not installed here: submit from a SLURM login node, or see --dry_run true")
    from submitit import SlurmExecutor  # late: needed by a submission alone
    from submitit.core.utils import FailedJobError

    executor = SlurmExecutor(folder)
    executor.update_parameters(**given)
    try:
        return executor.submit_array(jobs) if array else [executor.submit(job) for job in jobs]
    except FailedJobError as error:
        raise RuntimeError(f"the cluster refused the job: {error}") from error


def alive() -> set[str] | None:
    """Returns this user's jobs that have not ended, those of arrays as "id_index"; None without an answer."""
    states = ",".join(sorted(ALIVE - {"REQUEUED", "REQUEUE_HOLD", "STOPPED"}))
    asked = ["squeue", "--noheader", "--array", "--me", "--format=%i", f"--states={states}"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return set(done.stdout.split()) if done.returncode == 0 else None


def state(job_id: str) -> str:
    """Returns a job's state, such as "RUNNING" or "COMPLETED"; "UNKNOWN" for a job that the cluster does not know."""
    done = subprocess.run(["scontrol", "show", "job", "-o", job_id], capture_output=True, text=True)
    fields = dict(part.partition("=")[::2] for part in done.stdout.split())
    return fields.get("JobState", "UNKNOWN")


def cancel(job_ids: Sequence[str]) -> None:
    """Cancels jobs by their numbers."""
    if job_ids:
        subprocess.run(["scancel", *job_ids], capture_output=True)
