"""docs/regimes.md: each row names a test that exists, and each refusal a message that the code raises."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split(" | ")]
    for line in (ROOT / "docs" / "regimes.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| Regime")
]


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


FOLDERS = tuple(ROOT / "tests" / folder for folder in (".", "core", "integrations", "lightning", "regimes"))
TESTS = {path.stem: functions(path) for folder in FOLDERS for path in folder.glob("*.py")}


def texts(node: ast.AST) -> list[str]:
    """String constants below a node, a formatted one with … for its values."""
    found = []
    for part in ast.walk(node):
        if isinstance(part, ast.JoinedStr):
            found.append("".join(v.value if isinstance(v, ast.Constant) else "…" for v in part.values))
        elif isinstance(part, ast.Constant) and isinstance(part.value, str):
            found.append(part.value)
    return found


MESSAGES = [
    text
    for path in (ROOT / "metalr").rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Raise)
    for text in texts(node)
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_backed(row):
    _, what, backing = row
    named = re.findall(r"`(\w+)::(\w+)`", backing)
    assert named
    for module, function in named:
        assert function in TESTS[module], f"{module}::{function}"
    if what.startswith("refused"):
        message = re.search(r"`([^`]+)`", what)[1].rstrip(" ")
        assert any(message in text for text in MESSAGES), message


def test_every_test_of_a_regime_is_in_the_table():
    named = {name for row in ROWS for name in re.findall(r"::(\w+)`", row[2])}
    assert len(ROWS) > 50
    assert {module for module in TESTS if module.startswith("test_")} >= {"test_precision", "test_sharded"}
    for module in ("test_precision", "test_sharded", "test_killed", "test_ranks", "test_compile"):
        missing = {f for f in TESTS[module] if f.startswith("test_")} - named
        assert not missing, missing
