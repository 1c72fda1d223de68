"""One part: `python -m benchmarks.accelerator <part> [--smoke]`; see accelerator.sh for all of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.accelerator.report import Report, Setting

SECONDS = {"right": 120, "cost": 130, "captured": 60, "workloads": 130, "meta": 100}
"""The parts, the most telling first, and the time of each: nine minutes."""

SMOKE_SECONDS = 540
"""Of a part with --smoke: a busy machine is slow, and nothing is to be left out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures one part.

    Args:
        arguments: in place of the command line's.

    Raises:
        SystemExit: for an unknown part, or where there is no accelerator and no --smoke.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accelerator", description="Measures one part.")
    parser.add_argument("part", choices=list(SECONDS))
    parser.add_argument("--out", type=Path, default=Path("results/accelerator"), help="folder of what is measured")
    parser.add_argument("--bundle", type=Path, default=Path("dist/accelerator"), help="of `make accelerator-bundle`")
    parser.add_argument("--seconds", type=float, help="after which nothing new begins")
    parser.add_argument("--smoke", action="store_true", help="runs a reduced version on the CPU, to try the script")
    given = parser.parse_args(arguments)
    if not given.smoke and not torch.cuda.is_available():
        parser.error("there is no CUDA GPU; --smoke runs a reduced version on the CPU")
    device = torch.device("cpu" if given.smoke else "cuda")
    seconds = given.seconds or (SMOKE_SECONDS if given.smoke else SECONDS[given.part])
    setting = Setting(device, given.bundle, given.out, given.smoke, seconds)
    torch.manual_seed(0)
    import_module(f"benchmarks.accelerator.{given.part}").measure(setting, Report(given.part, setting))


if __name__ == "__main__":
    main()
