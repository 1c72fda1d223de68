"""Mutates a module, one small change at a time, and counts the mutants that its tests do not notice.

    OMP_NUM_THREADS=1 nice -n 15 python -m benchmarks.mutation --modules '[features, update_rule]' --sample 40
    python -m benchmarks.mutation --report_only true

A mutant is run in a forked process, which has the libraries imported already and metalr not yet: the mutated module is
compiled in place of the file, so that nothing is ever written beside the sources. Tests that start processes of their
own see the file as it is. Each result is one line of `logs/mutation.jsonl`, and a mutant that stands there is not run
again: delete the lines of those that a new test should kill. The report has the share of mutants that survived by
module, and names each.
"""

from __future__ import annotations

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from jsonargparse import auto_cli

from benchmarks.mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "logs" / "mutation.jsonl"
IMPORTED = ("torch", "numpy", "lightning.pytorch", "hypothesis", "pytest", "xgboost", "transformers", "torch._dynamo")
"""What every mutant's tests would import anew."""

CORE = "tests/core"
LIGHTNING = ("tests/lightning", "tests/regimes/test_horizon.py", "tests/regimes/test_callbacks.py")
TESTS: dict[str, tuple[str, ...]] = {
    "metalr/core/features.py": (f"{CORE}/test_features.py", f"{CORE}/test_recorded_rates.py"),
    "metalr/core/update_rule.py": (f"{CORE}/test_update_rule.py", f"{CORE}/test_features.py"),
    "metalr/core/signals.py": (f"{CORE}/test_signals.py", f"{CORE}/test_controller.py", "tests/regimes/test_groups.py"),
    "metalr/core/direction.py": (f"{CORE}/test_direction.py", f"{CORE}/test_recorded_rates.py", CORE),
    "metalr/core/sample.py": (f"{CORE}/test_sample.py", "tests/regimes/test_complex.py", CORE),
    "metalr/core/guards.py": (f"{CORE}/test_guards.py", f"{CORE}/test_lr_limits.py"),
    "metalr/core/decision.py": (f"{CORE}/test_recorded_rates.py", CORE),
    "metalr/core/decider.py": (f"{CORE}/test_recorded_rates.py", CORE),
    "metalr/core/controller.py": (f"{CORE}/test_controller.py", CORE, "tests/regimes/test_groups.py"),
    "metalr/core/origin.py": (f"{CORE}/test_signals.py", f"{CORE}/test_weight_structure.py", CORE),
    "metalr/core/weight_structure.py": (f"{CORE}/test_weight_structure.py",),
    "metalr/lightning/callback.py": LIGHTNING,
    "metalr/lightning/checks.py": LIGHTNING,
    "metalr/lightning/drive.py": LIGHTNING,
    "metalr/lightning/hooks.py": LIGHTNING,
    "metalr/lightning/horizon.py": ("tests/regimes/test_horizon.py", "tests/lightning/test_resumed_horizon.py"),
    "metalr/lightning/logged_metrics.py": LIGHTNING,
    "metalr/lightning/monitors.py": LIGHTNING,
    "metalr/lightning/packages.py": ("tests/lightning/test_packages.py", "tests/lightning/test_lightning.py"),
    "metalr/lightning/rates.py": ("tests/lightning/test_rates.py", "tests/regimes/test_groups.py"),
    "metalr/lightning/stopwatch.py": LIGHTNING,
}
"""The tests of each module, those that are likeliest to fail first."""


class Result(NamedTuple):
    """Holds what became of a mutant.

    Attributes:
        module: path of the mutated file.
        mutant: its line and what was changed.
        outcome: "killed", "survived" or "timeout", which counts as killed.
        seconds: that its tests took.
    """

    module: str
    mutant: str
    outcome: str
    seconds: float


class MutatedModule(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, and makes it of another source than its file's."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        self.path = path
        self.tree = tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Finds the mutated module alone."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Runs the mutated source."""
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def _test(mutant: Mutant | None, path: Path, tests: tuple[str, ...]) -> int:
    """Runs tests with a mutant in this process, until one fails; without one for None."""
    import pytest

    if mutant is not None:
        sys.meta_path.insert(0, MutatedModule(path, mutant.tree))
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "--timeout=120"]
    return int(pytest.main([*quiet, *dict.fromkeys(tests)]))


def outcome(mutant: Mutant | None, path: Path, tests: tuple[str, ...], limit_s: float) -> str:
    """Runs a module's tests against a mutant in a forked process.

    Args:
        mutant: to run; None for the module as it is.
        path: of the module.
        tests: to run, until one fails.
        limit_s: seconds after which the mutant counts as one that hangs.

    Returns:
        "killed", "survived" or "timeout".
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        try:
            code = _test(mutant, path, tests)
        except BaseException:
            code = 1
        os._exit(code)
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "survived" if os.waitstatus_to_exitcode(status) == 0 else "killed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def results() -> Iterator[Result]:
    """Reads the results so far."""
    if RESULTS.exists():
        for line in RESULTS.read_text().splitlines():
            yield Result(**json.loads(line))


def report() -> None:
    """Prints the share that survived by module, and who did."""
    found = list(results())
    survivors = [result for result in found if result.outcome == "survived"]
    for module in dict.fromkeys(result.module for result in found):
        total = sum(result.module == module for result in found)
        alive = [result.mutant for result in survivors if result.module == module]
        print(f"{module:40s} {len(alive):3d} of {total:3d} survived, {100 * len(alive) / total:3.0f} %")
        print("\n".join(f"    {mutant}" for mutant in alive), end="\n" if alive else "")
    print(f"{'all':40s} {len(survivors):3d} of {len(found):3d} survived")


def main(modules: list[str] | None = None, sample: int = 40, seed: int = 0, report_only: bool = False) -> None:
    """Runs a sample of each module's mutants.

    Args:
        modules: names such as `features` or `lightning/rates`; None for all.
        sample: mutants of each module.
        seed: of the sample.
        report_only: print the results so far instead.
    """
    if report_only:
        report()
        return
    chosen = {p: t for p, t in TESTS.items() if modules is None or any(p.endswith(f"/{m}.py") for m in modules)}
    if not chosen:
        raise ValueError(f"modules={modules}: choose from {', '.join(Path(path).stem for path in TESTS)}")
    os.chdir(ROOT)
    RESULTS.parent.mkdir(exist_ok=True)
    for name in IMPORTED:
        importlib.import_module(name)
    known = {(result.module, result.mutant) for result in results()}
    for name, tests in chosen.items():
        path = ROOT / name
        begun = time.monotonic()
        if outcome(None, path, tests, 1800.0) != "survived":
            raise RuntimeError(f"{name}: its tests fail without a mutant: {' '.join(tests)}")
        limit = 60.0 + 4.0 * (time.monotonic() - begun)
        mutants = mutants_of(path.read_text())
        for mutant in random.Random(seed).sample(mutants, min(sample, len(mutants))):
            if (name, mutant.name) in known:
                continue
            begun = time.monotonic()
            found = outcome(mutant, path, tests, limit)
            result = Result(name, mutant.name, found, round(time.monotonic() - begun, 1))
            with RESULTS.open("a") as file:
                file.write(json.dumps(result._asdict()) + "\n")
            print(f"{found:9s}{result.seconds:7.1f} s  {name}  {mutant.name}", flush=True)
    report()


if __name__ == "__main__":
    auto_cli(main)
