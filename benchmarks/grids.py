"""Runs a folder of grids one after the other, and writes the page of docs that shows their reports.

    python -m benchmarks.grids reduced   # the reduced version of every grid: docs/reduced.md
    python -m benchmarks.grids targets   # every workload against its target, learned and not: docs/targets.md

Each grid is `python train.py compare --config <its YAML>`: what is finished is not run again, what was broken off goes
on, and a cell whose policy or config has changed since is run anew. So after another policy was shipped, the same
command brings the page up to date without running the baselines again. Needs METALR_DATA, the folder of real data cut
small.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml
from jsonargparse import auto_cli

from benchmarks.grids_page import write_page
from datamodules.hub import load

ROOT = Path(__file__).resolve().parents[1]
EIGHT = Path("logs/data/eight_questions")
"""Where `targets` has its questions to memorise."""


def main(
    folder: Literal["reduced", "targets"],
    names: Sequence[str] = (),
    later: Sequence[str] = (),
    workers: int | None = None,
    threads: int | None = None,
    page_only: bool = False,
) -> None:
    """Runs the grids of a folder, and writes their page.

    Args:
        folder: of configs/compare.
        names: of the grids to run, such as adult_mlp; none given: all.
        later: schedules that are not run now, such as metalr while its policy is in the making.
        workers: cells at a time; None for one a device, or where there is none, one a core.
        threads: of each; None for an equal share of the cores.
        page_only: write the page of what has been run already.

    Raises:
        ValueError: for an unknown name.
        SystemExit: where a cell failed, after the page; or at once on Ctrl-C.
    """
    os.chdir(ROOT)
    grids = sorted(Path("configs/compare", folder).glob("*.yaml"))
    known = [path.stem for path in grids]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"names={unknown}: choose of {', '.join(known)}")
    failed = []
    if not page_only:
        if folder == "targets" and not EIGHT.is_dir():
            write_questions(EIGHT)
        shares = {"workers": workers, "threads": threads}
        options = [f"--{name}={value}" for name, value in shares.items() if value is not None]
        failed = [path for path in grids if (not names or path.stem in names) and not _run(path, later, options)]
    print(f"page: {write_page(folder, grids)}")
    if failed:
        raise SystemExit(f"not all cells have ended well: {', '.join(map(str, failed))}")


def _run(grid: Path, later: Sequence[str], options: Sequence[str]) -> bool:
    now = [name for name in yaml.safe_load(grid.read_text())["schedules"] if name not in later]
    command = ["train.py", "compare", f"--config={grid}", f"--only=[{', '.join(now)}]", "--redo_changed=true", *options]
    print("\n$ python", *command, flush=True)
    ended = subprocess.run([sys.executable, *command], check=False)
    if ended.returncode == 130:  # Ctrl-C
        raise SystemExit(130)
    return ended.returncode == 0


def write_questions(folder: Path) -> None:
    """Writes eight questions of SQuAD 2.0, two of them without an answer, both to train and to validate on."""
    rows = load(f"{os.environ['METALR_DATA']}/squad_v2", None, "validation")
    answerable, unanswerable = ([i for i in range(400) if bool(rows[i]["answers"]["text"]) is k] for k in (True, False))
    chosen = rows.select([*answerable[::20][:6], *unanswerable[::20][:2]])
    for split in ("train", "validation"):
        file = folder / "data" / f"{split}-00000-of-00001.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        chosen.to_parquet(file)


if __name__ == "__main__":
    auto_cli(main)
