"""Meta-training: inner steps a second, and a run that goes on from its checkpoint for the time that is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml

from benchmarks.accelerator.report import Report, Setting
from benchmarks.meta_throughput import Unit, operations_a_second, steps_a_second

LIMIT_SHARE = 0.5
"""Of the part's time, for the inner steps."""

SMOKE_SECONDS = 5
"""Of meta-training with --smoke."""


def units(smoke: bool) -> Iterator[Unit]:
    """Yields what is measured, the reference unit first, over runs and then over widths."""
    if smoke:
        yield Unit(runs=4, width=4, compiled=False)
        return
    for runs in (8192, 1024, 32_768, 131_072):
        yield Unit(runs=runs)
    for width in (128, 512):
        yield Unit(runs=4096, width=width)
    yield Unit(runs=8192, compiled=False)


def measure(setting: Setting, report: Report) -> None:
    """Measures the inner steps, and continues the bundle's meta-training."""
    total = setting.left
    limit = operations_a_second(setting.device)
    for unit in units(setting.smoke):
        key = {"what": "inner steps", "runs": unit.runs, "width": unit.width, "compiled": unit.compiled}
        if report.has(**key) or setting.left < (1.0 - LIMIT_SHARE) * total:
            continue
        steps, first = steps_a_second(unit, 20 if setting.smoke else 200, setting.device)
        share = steps * unit.operations / limit
        report.add(**key, steps_a_second=steps, share_of_limit=share, first_seconds=first)
    if (setting.bundle / "meta" / "last.ckpt").is_file() and setting.left > 0:
        go_on(setting, report)


def go_on(setting: Setting, report: Report) -> None:
    """Continues the bundle's meta-training for the time that is left; its checkpoint is written to `out`/meta.

    Raises:
        subprocess.CalledProcessError: where the training fails.
    """
    folder, out = setting.bundle / "meta", setting.out / "meta"
    before = int(torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["global_step"])
    override = setting.out / "meta.yaml"
    override.parent.mkdir(parents=True, exist_ok=True)
    override.write_text(yaml.safe_dump(_override(setting, out)))
    configs = [*sorted(folder.glob("*.yaml"), key=lambda path: int(path.stem)), override]
    command = [sys.executable, "train.py", "fit", *(f"--config={path}" for path in configs)]
    if (folder / "starts").is_dir():
        command.insert(0, f"METALR_STARTS={folder / 'starts'}")
        command.insert(0, "env")
    subprocess.run([*command, f"--ckpt_path={folder / 'last.ckpt'}"], check=True)
    newest = max(out.rglob("last*.ckpt"), key=lambda path: path.stat().st_mtime)
    state = torch.load(newest, map_location="cpu", weights_only=True)
    state["callbacks"].pop("Timer", None)  # it would count this time to that of the next machine
    torch.save(state, setting.out / "last.ckpt")
    report.add(what="meta-training", before=before, after=int(state["global_step"]), checkpoint="last.ckpt")


def _override(setting: Setting, out: Path) -> dict[str, object]:
    """What the configs do not say: this device, the time that is left, and a checkpoint of every meta-step."""
    checkpoint = {"dirpath": str(out), "every_n_train_steps": 1, "save_last": True, "save_top_k": 1}
    trainer: dict[str, object] = {
        "accelerator": "gpu" if setting.device.type == "cuda" else "cpu",
        "devices": 1,
        "default_root_dir": str(out),
        "max_time": {"seconds": SMOKE_SECONDS if setting.smoke else max(1, round(setting.left))},
        "limit_val_batches": 0,
        "enable_progress_bar": False,
        "logger": False,
        "callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": checkpoint}],
    }
    return {"trainer": trainer}
