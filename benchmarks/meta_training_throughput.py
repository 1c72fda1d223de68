"""Inner steps a core-hour of whole meta-trainings, with compilation, held-out checks and the learning of the support.

    OMP_NUM_THREADS=1 python -m benchmarks.meta_training_throughput

Each row is a `train.py fit` in a process of its own: first with nothing compiled, then with what the first has left on
disk. Core seconds are those that the process and the compilers it starts have used, so that they change little where
other work shares the machine; wall seconds stand beside them. The shares are of the core seconds:

- compile: the first two steps and the first evaluation of each inner run, where tracing and compiling happens;
- loop: the other inner steps; evaluate: the losses along the runs; gradient: the estimator's backward pass;
- sample: task batches; heldout: the check of the policy; support: what it learns at the end; the rest is imports,
  Lightning and checkpoints.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import auto_cli

from metalr.core.policy import LRPolicy

ROOT = Path(__file__).parents[1]
PHASES = ("compile", "loop", "evaluate", "gradient", "sample", "heldout", "support")
CONFIGS = ("base", "tasks/wide", "heldout/networks", "default_wide")


def core_seconds() -> float:
    """Returns the core seconds that this process and its ended children have used."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


class Phases(L.Callback):
    """Measures the core seconds of each phase of a meta-training, and writes them at its end.

    Args:
        path: of the JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path, self.seconds, self._inside = Path(path), Counter[str](), False
        self._wrapped: list[tuple[Any, str, Any]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Wraps the functions that make up the phases."""
        import metalr.meta.action_es as action_es
        import metalr.meta.learner as learner
        from metalr.meta import HeldOutTask, TaskDistribution, Unroll

        self._wrap(Unroll, "__init__", lambda *_: "compile")
        self._wrap(Unroll, "advance", lambda runs, *_: "compile" if runs.step < 2 else "loop")
        self._wrap(Unroll, "log_ratio", lambda *_: "evaluate")
        self._wrap(action_es, "decision_gradient", lambda *_: "gradient")
        self._wrap(TaskDistribution, "sample", lambda *_: "sample")
        self._wrap(HeldOutTask, "score", lambda *_: "heldout")
        self._wrap(learner, "visited_states", lambda *_: "support")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Writes the seconds, and leaves the functions as they were."""
        self.path.write_text(json.dumps(self.seconds))
        for owner, name, function in self._wrapped:
            setattr(owner, name, function)
        self._wrapped.clear()

    def _wrap(self, owner: Any, name: str, phase: Callable[..., str]) -> None:
        function = getattr(owner, name)
        self._wrapped.append((owner, name, function))

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:  # counts for the outermost phase
                return function(*args, **kwargs)
            self._inside, key, start = True, phase(*args), core_seconds()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[key] += core_seconds() - start
                self._inside = False

        setattr(owner, name, timed)


def observed(folder: Path) -> list[str]:
    """Returns the arguments of a meta-training that writes its policy and its phases to a folder."""
    logger = {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": str(folder), "name": "", "version": ""},
    }
    phases = {
        "class_path": "benchmarks.meta_training_throughput.Phases",
        "init_args": {"path": str(folder / "phases.json")},
    }
    arguments = [f"--trainer.logger={json.dumps(logger)}", f"--trainer.callbacks={json.dumps([phases])}"]
    return [*arguments, "--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]


def fit(folder: Path, arguments: Sequence[str]) -> tuple[int, float, float, Counter[str]]:
    """Runs a meta-training in a process of its own.

    Args:
        folder: of the policy, and of what is compiled.
        arguments: of `train.py fit`.

    Returns:
        Inner steps, core seconds, wall seconds, and the core seconds of each phase.
    """
    command = [sys.executable, "train.py", "fit", *arguments, *observed(folder)]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"), "PYTHONPATH": str(ROOT)}
    core, wall = core_seconds(), time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    core, wall = core_seconds() - core, time.perf_counter() - wall
    steps = int(LRPolicy.load(folder / "policy.safetensors").card["inner_steps"])
    return steps, core, wall, Counter(json.loads((folder / "phases.json").read_text()))


def main(
    configs: Sequence[str] = CONFIGS,
    meta_steps: int = 12,
    task_batches: int = 8,
    pairs: int = 64,
    overrides: Sequence[str] = (),
) -> None:
    """Prints a row for a cold start and one for a warm start.

    Args:
        configs: files of configs/meta, without their suffix.
        meta_steps: of each meta-training, with a held-out check at the end.
        task_batches: of a meta-step.
        pairs: of a task batch.
        overrides: more arguments of `train.py fit`.
    """
    arguments = [f"--config=configs/meta/{name}.yaml" for name in configs]
    arguments += [f"--trainer.max_steps={meta_steps}", f"--trainer.val_check_interval={meta_steps}"]
    arguments += [f"--model.init_args.task_batches={task_batches}"]
    arguments += [f"--model.init_args.estimator.init_args.pairs={pairs}", *overrides]
    head = ("start", "inner steps", "core s", "wall s", "M steps / core-hour", *PHASES, "rest")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for start in ("cold", "warm"):
            steps, core, wall, seconds = fit(Path(folder), arguments)
            shares = [seconds[phase] / core for phase in PHASES]
            cells = [start, f"{steps:,}", f"{core:.0f}", f"{wall:.0f}", f"{3600e-6 * steps / core:.1f}"]
            cells += [f"{share:.0%}" for share in (*shares, 1.0 - sum(shares))]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    auto_cli(main)
