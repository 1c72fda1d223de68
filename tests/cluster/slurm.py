"""A SLURM of two nodes with a core each on this machine, for as long as a test needs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

WAIT = 240
"""Seconds that a test waits for the cluster to do something; it takes a few on a machine with nothing else to do."""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
needs_slurm = pytest.mark.skipif(
    bool(MISSING) or os.geteuid() != 0,
    reason=f"needs root, and SLURM and munge (missing: {', '.join(MISSING) or 'none'})",
)

_CONF = """ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.socket
CommunicationParameters=NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=bf_interval=2,sched_min_interval=500000
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17001 CPUs=1 RealMemory=10000 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17002 CPUs=1 RealMemory=10000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=60 State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Starts it in a folder of its own; gives the environment in which `sbatch` finds it."""
    for name in ("state", "log", "spool.n1", "spool.n2", "munge"):
        (folder / name).mkdir(parents=True)
    (folder / "slurm.conf").write_text(_CONF.format(folder=folder))
    environment = os.environ | {
        "SLURM_CONF": str(folder / "slurm.conf"),
        "PATH": f"{os.environ['PATH']}:/usr/sbin",
    }
    munge = folder / "munge"
    (munge / "munge.key").write_bytes(os.urandom(1024))
    (munge / "munge.key").chmod(0o400)
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
    options = [f"--{key}={munge / name}" for key, name in files.items()]
    servers = [
        ["munged", "--foreground", "--force", f"--key-file={munge / 'munge.key'}", *options],
        ["slurmctld", "-D", "-c"],
        *(["slurmd", "-D", "-N", node] for node in ("n1", "n2")),
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in servers:
            log = (folder / "log" / f"{command[0]}.out").open("ab")
            running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(0.5)
        wait_for(lambda: ask(environment, "sinfo", "-h", "-o", "%t").split() == ["idle"])
        yield environment
    finally:
        ask(environment, "scancel", "--user=root", "--signal=KILL", "--full")
        for process in reversed(running):
            process.terminate()
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(environment: dict[str, str], *command: str) -> str:
    """What a command of SLURM's prints; empty where it fails."""
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def wait_for(what, seconds: float = WAIT, every: float = 0.5):
    """Waits until `what()` gives something, and returns it."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(every)
    raise AssertionError(f"not in {seconds} s")
