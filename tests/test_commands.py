"""Every command that a page, a config's head or a docstring shows is parsed by the parser that would parse it."""

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from jsonargparse import auto_cli, capture_parser

from metalr.cli import MetaLRCLI
from metalr.compare.shell import expand
from tests.pages import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml")) + sorted((ROOT / "examples").rglob("*.yaml"))
MODULES = sorted([*(ROOT / "metalr").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), ROOT / "train.py"])
PROGRAMS = r"(?:[A-Z_]+=\S+ )*(?:nice -n \d+ )?(?:python|make|torchrun|tensorboard|pip)\b"
GIVEN = ("first.py", "your_script.py")
"""Scripts of the reader's own."""

SHELL = ("mkdir", "export", "source", "git", "pip", "tensorboard")
"""What a block of bash may have beside our own commands."""


class Shown(NamedTuple):
    """A command, and the file that shows it."""

    path: Path
    text: str


def in_blocks(path: Path) -> list[Shown]:
    """Of a page's blocks of bash, or without a language where they are commands: parts of lines between `&&`."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [
        line
        for language, block in blocks
        if language == "bash" or (not language and re.match(PROGRAMS, block))
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [Shown(path, part.strip()) for line in lines for part in line.split("&&") if part.strip()]


def in_words(path: Path) -> list[Shown]:
    """Of a page's text, between backticks."""
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return [Shown(path, span) for span in spans if re.match(PROGRAMS + " ", span)]


def in_comments(path: Path) -> list[Shown]:
    """Of a YAML's comments and of a module's docstrings: lines of their own, also continued ones."""
    text = re.sub(r"\\\n\s*#?\s*", " ", path.read_text())
    lines = re.findall(rf"^(?:#   | *)({PROGRAMS} .+?)(?:  +#.*)?$", text, flags=re.MULTILINE)
    return [Shown(path, line) for line in lines if re.match(r".*(python|make) (-m |\S+\.py|[a-z-]+$)", line)]


BLOCKS = [shown for page in PAGES for shown in in_blocks(page)]
WORDS = [shown for page in PAGES for shown in in_words(page)]
COMMENTS = [shown for path in (*CONFIGS, *MODULES) for shown in in_comments(path)]
EVERY = list(dict.fromkeys(Shown(*shown) for shown in (*BLOCKS, *WORDS, *COMMENTS)))


def braces(word: str) -> list[str]:
    """Expands a brace as bash does: a{b,c/d} -> [ab, ac/d]."""
    found = re.fullmatch(r"([^{}\[\]]*)\{([^{}:]+,[^{}:]+)\}([^{}]*)", word)
    return [f"{found[1]}{name}{found[3]}" for name in found[2].split(",")] if found else [word]


def words(text: str) -> list[str]:
    """The words of a command without its environment, `nice` and what follows a `#`."""
    found = [part for word in shlex.split(text, comments=True) for part in braces(word)]
    while found and (re.fullmatch(r"[A-Z_]+=.*", found[0]) or found[0] in ("nice", "-n") or found[0].isdigit()):
        found.pop(0)
    return found


class CaptureError(Exception):
    """Brings a parser of argparse out of the script that made it."""


def argparse_parser(name: str) -> argparse.ArgumentParser:
    """The parser that a script makes, which runs no further."""

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise CaptureError(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(CaptureError) as caught:
            runpy.run_module(name, run_name="__main__")
    return caught.value.args[0]


class Parsers:
    """Parses the arguments of `train.py` and of the benchmarks, and runs nothing."""

    class Parsed(MetaLRCLI):
        """Stops where classes would be made."""

        def instantiate_classes(self) -> None:
            """Makes none."""

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    def __init__(self) -> None:
        self.cli = self.Parsed(args=["inspect", "default"])
        self.modules: dict[str, object] = {}

    def train(self, arguments: list[str]) -> None:
        name, *rest = arguments
        if name == "submit":
            end = rest.index("--")
            self.train(rest[end + 1 :])
            rest = rest[:end]
        try:
            self.cli._strict_parser(name).parse_args(expand(rest))
        except SystemExit as ended:
            if ended.code:  # 0 is that of --help
                raise

    def module(self, name: str, arguments: list[str]) -> None:
        if name == "pytest":
            assert all((ROOT / each).exists() for each in arguments if not each.startswith("-"))
            return
        if name in ("venv", "mkdocs"):
            return
        if name not in self.modules:
            found = importlib.util.find_spec(name)
            assert found is not None, f"no module {name}"
            if found.submodule_search_locations:  # whose `**options` are looked up in its module, by its own name
                main = importlib.import_module(f"{name}.__main__").main
                self.modules[name] = capture_parser(lambda: auto_cli(main))
            elif "import argparse" in Path(found.origin).read_text():
                self.modules[name] = argparse_parser(name)
            else:
                self.modules[name] = capture_parser(lambda: runpy.run_module(name, run_name="__main__"))
        parser = self.modules[name]
        parser.exit_on_error = False
        try:
            parser.parse_args(expand(arguments))
        except SystemExit as ended:
            if ended.code:  # 0 is that of --help
                raise


@pytest.fixture(scope="module")
def parsers():
    return Parsers()


@pytest.fixture
def as_a_reader(monkeypatch, tmp_path):
    """In the repository's root, with a folder of data, and no arguments of pytest's."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("METALR_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["python"])


@pytest.mark.slow
@pytest.mark.parametrize("shown", EVERY, ids=lambda shown: f"{shown.path.name}: {shown.text[:60]}")
def test_a_command_parses(shown, parsers, as_a_reader, monkeypatch):
    text = shown.text
    if any(mark in text for mark in ("...", "…", "<", "{name}", " [--")):  # the form of a command, not one to type
        program, first = re.search(PROGRAMS + r" (\S+)", text).group(0).split()[-2:]
        assert program in ("make", "pip") or first == "-m" or (ROOT / first).exists()
        return
    program, *rest = words(text)
    if program == "bash":
        script, *parts = rest
        known = re.search(r"^PARTS=\((.*)\)$", (ROOT / script).read_text(), flags=re.MULTILINE).group(1).split()
        assert set(parts) <= {*known, "--smoke"}
    elif program == "make":
        assert re.search(rf"^([a-z]+ )*{rest[0]}( [a-z]+)*:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif program == "torchrun":
        parsers.train(rest[rest.index("train.py") + 1 :])
    elif program == "python":
        script, *arguments = rest[1:] if rest[0] == "-m" else rest
        if script == "train.py":
            if shown.path.name in ("own-policy.md", "own_policy.yaml"):  # in the example's own folder
                monkeypatch.chdir(ROOT / "examples" / "own_policy")
                monkeypatch.syspath_prepend(str(ROOT / "examples" / "own_policy"))
            parsers.train(arguments)
        elif rest[0] == "-m":
            if arguments or shown not in WORDS:
                parsers.module(script, arguments)
            else:
                assert importlib.util.find_spec(script) is not None
        else:
            assert (ROOT / "examples" / "own_policy" / script).is_file() or script in GIVEN, script
    else:
        assert program in SHELL, text


def test_the_commands_are_found():
    """A pattern that matches nothing would let every test above pass."""
    assert {shown.path.name for shown in BLOCKS} >= {"README.md", "cluster.md", "cost.md", "targets.md", "index.md"}
    assert len(BLOCKS) > 60
    assert sum(shown.path.suffix == ".yaml" for shown in COMMENTS) > 20
    assert sum(shown.path.suffix == ".py" for shown in COMMENTS) > 15
    assert len(WORDS) > 15
