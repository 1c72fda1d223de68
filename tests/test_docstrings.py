"""The docstrings' examples run, every public entry point has one, and functions are described by verbs."""

import ast
import doctest
import importlib
import re

import pytest

from tests.pages import ROOT

PATHS = sorted((ROOT / "metalr").rglob("*.py"))
DOORS = {
    "metalr": ["Guards", "LRPolicy", "MetaLR", "MetaLRCallback"],
    "metalr.cli": ["MetaLRCLI"],
    "metalr.cluster.options": ["Cluster", "Submission"],
    "metalr.compare": ["Grid", "Schedule", "Workload"],
    "metalr.inspection": ["ConvergenceSpeed", "Inspector", "MetaInspector", "Recorder", "RunTable", "responses"],
    "metalr.integrations.fabric": ["FabricMetaLR"],
    "metalr.integrations.huggingface": ["MetaLRTrainerCallback"],
    "metalr.integrations.scheduler": ["MetaLRScheduler"],
    "metalr.integrations.xgboost": ["MetaLRTrainingCallback"],
    "metalr.meta": [
        "GradientEstimator",
        "HeldOutTask",
        "MetaLearner",
        "MetaTasksDataModule",
        "Net",
        "TaskDistribution",
        "TaskFamily",
        "rollout",
    ],
    "metalr.meta.families": ["ModuleTasks"],
    "metalr.schedules": ["HorizonLR"],
}


def module_of(path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PATHS if ">>>" in path.read_text()], ids=module_of)
def test_the_examples_of_a_module_run(path, tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    tried = doctest.testmod(importlib.import_module(module_of(path)))
    assert tried.attempted > 0
    assert tried.failed == 0


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in DOORS.items() for name in names])
def test_a_public_entry_point_has_an_example(module, name):
    door = getattr(importlib.import_module(module), name)
    assert doctest.DocTestFinder(recurse=False).find(door)[0].examples


def is_property(function: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(each) or "setter" in ast.unparse(each) for each in function.decorator_list)


@pytest.mark.parametrize("path", [*PATHS, *sorted((ROOT / "benchmarks").rglob("*.py"))], ids=module_of)
def test_a_function_is_described_by_a_verb(path):
    """In the third person, "Returns ..."; a property is described as the attribute that it looks like."""
    for function in ast.walk(ast.parse(path.read_text())):
        if isinstance(function, ast.FunctionDef) and not is_property(function):
            text = ast.get_docstring(function)
            assert text is None or re.match(r"[A-Z][a-z]+s\b", text), f"{path}:{function.lineno}: {text}"
