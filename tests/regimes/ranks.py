"""Runs a function in several forked processes, as the ranks of one training."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_ranks(function: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """Calls function(rank, *arguments) on each rank, with gloo between them, and returns what each returned.

    Raises:
        torch.multiprocessing.ProcessRaisedException: what a rank raised.
        torch.multiprocessing.ProcessExitedException: when a rank was killed; the others are ended too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = folder / "store"
    store.unlink(missing_ok=True)
    mp.start_processes(_rank, (count, port, store, folder, function, arguments), nprocs=count, start_method="fork")
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=False) for rank in range(count)]


def _rank(rank: int, count: int, port: int, store: Path, folder: Path, function: Callable, arguments: tuple) -> None:
    # What a launcher sets, and Lightning reads.
    variables = {
        "LOCAL_RANK": rank,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "NODE_RANK": 0,
        "WORLD_SIZE": count,
    }
    os.environ.update({key: str(value) for key, value in variables.items()})
    torch.set_num_threads(1)
    if not getattr(function, "initialises", False):
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    torch.save(function(rank, *arguments), folder / f"rank-{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()


def initialises(function: Callable) -> Callable:
    """Marks a function that makes the process group itself, as a Trainer does."""
    function.initialises = True
    return function


def kill() -> None:
    """kill -9 of this process."""
    os.kill(os.getpid(), signal.SIGKILL)
