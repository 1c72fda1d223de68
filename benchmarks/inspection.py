"""Measures the cost of an inspection: CPU time of a step that is recorded or not, and bytes of its log.

    OMP_NUM_THREADS=1 python -m benchmarks.inspection

Prints medians as `name: value`; `metalr_step_us` is `MetaLR.step` itself, on the same small network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from jsonargparse import auto_cli
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from metalr import MetaLR
from metalr.inspection import Recorder
from metalr.inspection.decimation import Decimation
from metalr.inspection.tensorboard_events import write_decisions

_TOGETHER = 64


def _microseconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return 1e6 * (time.process_time() - start)


def main(steps: int = 1000) -> None:
    """Prints the figures.

    Args:
        steps: optimizer steps, 128 or more.

    Raises:
        ValueError: for fewer steps.
    """
    if steps < 2 * _TOGETHER:
        raise ValueError(f"steps={steps}: give {2 * _TOGETHER} or more")
    network = torch.nn.Linear(8, 4)
    optimizer = torch.optim.Adam(network.parameters())
    meta_lr = MetaLR(optimizer, steps)
    keeps = Recorder(meta_lr, Decimation(0, 2 * steps))
    leaves_out = Recorder(meta_lr, Decimation(0, 2, stride=2**30))
    step, kept, left_out, written = [], [], [], []
    with TemporaryDirectory() as folder:
        with SummaryWriter(folder) as writer:
            for _ in tqdm(range(steps)):
                loss = network(torch.randn(16, 8)).square().mean()
                optimizer.zero_grad()
                loss.backward()
                step.append(_microseconds(lambda loss=loss: meta_lr.step(loss)))
                optimizer.step()
                kept.append(_microseconds(keeps.offer))
                left_out.append(_microseconds(leaves_out.offer))
                if keeps.pending == _TOGETHER:
                    written.append(_microseconds(lambda: write_decisions(writer, keeps.drain())) / _TOGETHER)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"metalr_step_us: {median(step):.0f}")
    print(f"left_out_us: {median(left_out):.1f}\nkept_us: {median(kept):.0f}\nwritten_us: {median(written):.0f}")
    print(f"bytes_a_decision: {size / (_TOGETHER * len(written)):.0f}")


if __name__ == "__main__":
    auto_cli(main)
