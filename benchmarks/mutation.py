"""Mutates functions, one small change at a time, and counts the mutants that the tests do not notice.

    OMP_NUM_THREADS=1 nice -n 15 python -m benchmarks.mutation --modules '[features, update_rule]' --sample 40
    python -m benchmarks.mutation --report_only true

The tests are collected once. Then they run once as they are, each with a note of the functions of metalr that it calls
and of its time, which is kept in `logs/mutation_calls.json`: delete that file when tests have changed. A mutant is one
function's code put in place of the other's in a forked process, which runs the tests that call it, those first that
killed its neighbours, until one fails; nothing is written beside the sources. What a test does in processes of its own
goes unseen, and so do a module's constants, which are no function's.

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
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NamedTuple

import pytest
from jsonargparse import auto_cli

from benchmarks.mutants import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "logs" / "mutation.jsonl"
CALLS = ROOT / "logs" / "mutation_calls.json"
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
TESTS = [
    *("tests/core", "tests/lightning"),
    *(f"tests/regimes/test_{name}.py" for name in ("horizon", "groups", "callbacks", "gradients", "complex")),
]
LEFT_OUT = ["tests/core/test_policy.py"]
"""Thousands of damaged files."""

LIMIT_S = 300.0
"""Seconds beside five times what the tests took unchanged, after which a mutant counts as one that hangs."""


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


class Called(NamedTuple):
    """Holds what one test calls of the modules.

    Attributes:
        functions: "path qualified.name" of each.
        seconds: that it takes.
    """

    functions: set[str]
    seconds: float


def _functions_called(run: Callable[[], None]) -> set[str]:
    """Names the functions of metalr that are called meanwhile."""
    found: set[CodeType] = set()

    def note(frame: FrameType, event: str, arg: object) -> None:
        if event == "call":
            found.add(frame.f_code)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    prefix = f"{ROOT}/metalr/"
    return {_name(code) for code in found if code.co_filename.startswith(prefix)}


def _name(code: CodeType) -> str:
    """Names a function or what is nested in it by the outermost one, which is what is mutated."""
    outermost = code.co_qualname.partition(".<locals>")[0]
    return f"{Path(code.co_filename).relative_to(ROOT)} {outermost}"


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
        self.called: dict[str, Called] = {}
        self.kills: Counter[str] = Counter()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Runs all mutants; the tests themselves are run in forked processes."""
        self.session, self.items = session, session.items
        self._run_unchanged()
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

    def _run_unchanged(self) -> None:
        """Learns what each test calls, and leaves out those that do not pass."""

        def run() -> dict[str, Any]:
            found = {}
            for item in self.items:
                begun = time.monotonic()
                functions = _functions_called(lambda item=item: self._run_test(item))  # type: ignore[misc]
                if not self.session.testsfailed:
                    found[item.nodeid] = [sorted(functions), time.monotonic() - begun]
                self.session.testsfailed = 0
            return found

        if not CALLS.exists():
            answer = _forked(run, 7200.0)
            if answer is None:
                raise RuntimeError("the unchanged tests did not end within two hours")
            CALLS.write_text(json.dumps(answer))
        answer = json.loads(CALLS.read_text())
        self.called = {name: Called(set(functions), seconds) for name, (functions, seconds) in answer.items()}
        print(f"{len(self.called)} of {len(self.items)} tests pass unchanged", flush=True)

    def _run_test(self, item: pytest.Item) -> None:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def _run(self, module: str, mutant: Mutant) -> Result:
        name = f"{module} {mutant.function}"
        tests = [item for item in self.items if name in getattr(self.called.get(item.nodeid), "functions", ())]
        tests.sort(key=lambda item: (-self.kills[item.nodeid], self.called[item.nodeid].seconds))

        def run() -> dict[str, Any]:
            _put_in_place(ROOT / module, mutant)
            for item in tests:
                self._run_test(item)
                if self.session.testsfailed:
                    return {"failed": item.nodeid}
            return {"failed": ""}

        begun = time.monotonic()
        answer = _forked(run, LIMIT_S + 5.0 * sum(self.called[item.nodeid].seconds for item in tests))
        by = "" if answer is None else answer["failed"]
        outcome = "hung" if answer is None else "killed" if by else "survived"
        return Result(module, mutant.name, outcome, by, round(time.monotonic() - begun, 1))

    def _note(self, result: Result) -> None:
        self.kills[result.by] += 1
        with RESULTS.open("a") as file:
            file.write(json.dumps(result._asdict()) + "\n")
        print(f"{result.outcome:9s}{result.seconds:7.1f} s  {result.module}  {result.mutant}", flush=True)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yields the functions' codes below a module's or a class's."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            if ".<locals>" not in constant.co_qualname:
                yield from _codes(constant)


def _put_in_place(path: Path, mutant: Mutant) -> None:
    """Gives the live function the mutant's code."""
    compiled = compile(mutant.tree, str(path), "exec")
    new = next(code for code in _codes(compiled) if code.co_qualname == mutant.function and code.co_name != "<genexpr>")
    live = [
        each
        for each in gc.get_objects()
        if isinstance(each, FunctionType)
        and each.__code__.co_filename == str(path)
        and each.__code__.co_qualname == mutant.function
        and each.__code__.co_firstlineno == new.co_firstlineno
    ]
    if not live:
        raise RuntimeError(f"{path}: no function {mutant.function} is imported")
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
        pytest.main([*options, *(f"--ignore={each}" for each in LEFT_OUT), *TESTS], [Mutation(chosen, sample, seed)])
    report()


if __name__ == "__main__":
    auto_cli(main)
