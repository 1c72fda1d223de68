"""Mutates functions, one small change at a time, and counts the mutants that their tests do not notice.

    OMP_NUM_THREADS=1 nice -n 15 python -m benchmarks.mutation --modules '[features, update_rule]' --sample 40
    python -m benchmarks.mutation --report_only true

The tests are collected once. A mutant is one function's code put in place of the other's in a forked process, which
runs the tests of its module, those first that killed its neighbours, until one fails; nothing is written beside the
sources.
What a test does in processes of its own goes unseen, and so do a module's constants, which are no function's.

Each result is one line of `logs/mutation.jsonl`, and a mutant that stands there is not run again: delete the lines of
those that a new test should kill. The report has the share of mutants that survived by module, and names each.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import pytest
from jsonargparse import auto_cli

from benchmarks.mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "logs" / "mutation.jsonl"
MODULES = [
    f"metalr/{name}.py"
    for name in (
        *("core/features", "core/signals", "core/update_rule", "core/direction", "core/sample", "core/guards"),
        *("core/decision", "core/decider", "core/controller", "core/origin", "core/weight_structure"),
        *("lightning/callback", "lightning/checks", "lightning/drive", "lightning/hooks", "lightning/horizon"),
        *("lightning/logged_metrics", "lightning/monitors", "lightning/packages", "lightning/rates"),
        "lightning/stopwatch",
    )
]
CORE = ("core/test_controller", "core/test_recorded_rates")
GRAPHS = ("core/test_whole_step_compiled", "core/test_validation_in_place", "regimes/test_compile")
FITS = ("lightning/test_lightning", "lightning/test_rates", "regimes/test_callbacks")
TESTS = {
    "features": ("core/test_features", "core/test_recorded_rates"),
    "signals": ("core/test_signals", *CORE),
    "update_rule": ("core/test_update_rule", "core/test_features", "core/test_recorded_rates"),
    "direction": ("core/test_direction", *CORE, *GRAPHS),
    "sample": ("core/test_sample", "core/test_signals", "regimes/test_complex", *GRAPHS),
    "guards": ("core/test_guards", "core/test_lr_limits", "core/test_recorded_rates"),
    "decision": ("core/test_recorded_rates", "core/test_controller", "meta/test_estimator"),
    "decider": (*CORE, "core/test_guards", "core/test_collapse", "core/test_validation_loss", *GRAPHS),
    "controller": (
        *("core/test_controller", "core/test_explanation", "core/test_guards", "core/test_recorded_rates"),
        *("core/test_lr_limits", "core/test_collapse", "core/test_validation_loss", *GRAPHS),
        *("regimes/test_optimizers", "regimes/test_restore"),
    ),
    "origin": ("core/test_signals", "core/test_weight_structure", "core/test_controller"),
    "weight_structure": ("core/test_weight_structure",),
    "callback": (
        *FITS,
        "lightning/test_closures",
        "regimes/test_groups",
        "regimes/test_horizon",
        "lightning/test_resumed_horizon",
    ),
    "checks": ("lightning/test_lightning", "regimes/test_callbacks"),
    "drive": ("lightning/test_closures", *FITS),
    "hooks": FITS,
    "horizon": ("regimes/test_horizon", "lightning/test_resumed_horizon", "lightning/test_lightning"),
    "logged_metrics": ("lightning/test_logged_metrics", *FITS),
    "monitors": ("regimes/test_callbacks", "lightning/test_packages"),
    "packages": ("lightning/test_packages", "lightning/test_lightning"),
    "rates": ("lightning/test_rates", "regimes/test_groups"),
    "stopwatch": ("regimes/test_horizon", "lightning/test_lightning"),
}
"""By the name of a module, the modules of tests that are run against its mutants."""

LIMIT_S = 1800.0
"""Seconds after which a mutant counts as one that hangs."""


class Result(NamedTuple):
    """Holds what became of a mutant.

    Attributes:
        module: path of the mutated file.
        mutant: its line and what was changed.
        outcome: "killed", "survived", or "hung", which counts as killed.
        by: the test that failed.
        seconds: that its tests took.
    """

    module: str
    mutant: str
    outcome: str
    by: str
    seconds: float


def results() -> list[Result]:
    """Reads the results so far."""
    return [Result(**json.loads(line)) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def report() -> None:
    """Prints the share that survived by module, and who did."""
    found = results()
    survivors = [result for result in found if result.outcome == "survived"]
    for module in dict.fromkeys(result.module for result in found):
        total = sum(result.module == module for result in found)
        alive = [result.mutant for result in survivors if result.module == module]
        print(f"{module:40s}{len(alive):4d} of {total:3d} survived, {100 * len(alive) / total:3.0f} %")
        for mutant in alive:
            print(f"    {mutant}")
    print(f"{'all':40s}{len(survivors):4d} of {len(found):3d} survived")


def _forked(task: Callable[[], Any], limit_s: float) -> Any:
    """Runs a task in a forked process, whose output is dropped, and gives what it returns; None where it hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        sink = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(sink, stream)
        try:
            answer = task()
        except BaseException as error:
            answer = {"failed": f"{type(error).__name__} outside of the tests"}
        with os.fdopen(writer, "w") as file:
            json.dump(answer, file)
        os._exit(0)
    os.close(writer)
    end = time.monotonic() + limit_s
    parts: list[bytes] = []
    while (left := end - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        part = os.read(reader, 2**16)
        if not part:
            break
        parts.append(part)
    else:
        os.killpg(child, signal.SIGKILL)
    os.close(reader)
    os.waitpid(child, 0)
    text = b"".join(parts)
    return json.loads(text) if text.endswith(b"}") else None


class Mutation:
    """Runs mutants in place of the collected tests.

    Args:
        modules: paths of the files to mutate.
        sample: mutants of each.
        seed: of the sample.
    """

    def __init__(self, modules: list[str], sample: int, seed: int) -> None:
        self.modules, self.sample, self.seed = modules, sample, seed
        self.items: list[pytest.Item] = []
        self.kills: Counter[str] = Counter()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs all mutants; the tests themselves are run in forked processes."""
        self.session, self.items = session, session.items
        known = {(result.module, result.mutant) for result in results()}
        for module, mutant in self._sampled():
            if (module, mutant.name) not in known:
                self._note(self._run(module, mutant))
        return True

    def _sampled(self) -> Iterator[tuple[str, Mutant]]:
        """Yields one mutant of each module after the other, so that a run that is ended early has some of all."""
        rows = []
        for module in self.modules:
            mutants = mutants_of((ROOT / module).read_text())
            chosen = random.Random(self.seed).sample(mutants, min(self.sample, len(mutants)))
            rows.append([(module, mutant) for mutant in chosen])
        for together in zip_longest(*rows):
            yield from (each for each in together if each is not None)

    def _run_test(self, item: pytest.Item) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def _run(self, module: str, mutant: Mutant) -> Result:
        tests = [
            item
            for name in TESTS[Path(module).stem]
            for item in self.items
            if item.nodeid.startswith(f"tests/{name}.py::")
        ]
        tests.sort(key=lambda item: -self.kills[item.nodeid])

        def run() -> dict[str, Any]:
            _put_in_place(ROOT / module, mutant)
            for item in tests:
                self._run_test(item)
                if self.session.testsfailed:
                    return {"failed": item.nodeid}
            return {"failed": ""}

        begun = time.monotonic()
        answer = _forked(run, LIMIT_S)
        by = "" if answer is None else answer["failed"]
        outcome = "hung" if answer is None else "killed" if by else "survived"
        return Result(module, mutant.name, outcome, by, round(time.monotonic() - begun, 1))

    def _note(self, result: Result) -> None:
        self.kills[result.by] += 1
        with RESULTS.open("a") as file:
            file.write(json.dumps(result._asdict()) + "\n")
        print(f"{result.outcome:9s}{result.seconds:7.1f} s  {result.module}  {result.mutant}", flush=True)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yields the codes of all functions below a code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _put_in_place(path: Path, mutant: Mutant) -> None:
    """Gives the live function the mutant's code."""

    def is_it(code: CodeType) -> bool:
        place = (code.co_filename, code.co_name, code.co_firstlineno)
        return place == (str(path), mutant.function, mutant.line)

    gc.unfreeze()  # what the tests' conftest has put out of the collector's sight is not listed either
    new = next(code for code in _codes(compile(mutant.tree, str(path), "exec")) if is_it(code))
    live = [each for each in gc.get_objects() if isinstance(each, FunctionType) and is_it(each.__code__)]
    if not live:
        raise RuntimeError(f"{path}, line {mutant.line}: {mutant.function} is not imported")
    for each in live:
        each.__code__ = new


def main(modules: list[str] | None = None, sample: int = 60, seed: int = 0, report_only: bool = False) -> None:
    """Runs a sample of each module's mutants.

    Args:
        modules: names such as `features` or `lightning/rates`; None for all.
        sample: mutants of each module.
        seed: of the sample.
        report_only: print the results so far instead.
    """
    chosen = [path for path in MODULES if modules is None or any(path.endswith(f"/{name}.py") for name in modules)]
    if not chosen:
        raise ValueError(f"modules={modules}: choose from {', '.join(Path(path).stem for path in MODULES)}")
    if not report_only:
        os.chdir(ROOT)
        RESULTS.parent.mkdir(exist_ok=True)
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=120", "--capture=no"]
        tests = {f"tests/{name}.py" for path in chosen for name in TESTS[Path(path).stem]}
        pytest.main([*options, *sorted(tests)], [Mutation(chosen, sample, seed)])
    report()


if __name__ == "__main__":
    auto_cli(main)
