"""The docstrings' examples run, every public entry point has one, and functions and classes are described by verbs."""

import ast
import doctest
import importlib
import re

import pytest

from tests.pages import ROOT

PATHS = sorted((ROOT / "metalr").rglob("*.py"))
DOORS = {
    "metalr": ["Guards", "LRPolicy", "MetaLR", "MetaLRCallback"],
    "metalr.core.policy": ["shipped_policies"],
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
        "Split",
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


NOUNS = re.compile(
    r"Batches|Betas|Bounds|Classes|Columns|Convnets|Examples|Features|Functions|Gates|Gradients|"
    r"Hyperparameters|Images|Indices|Inputs|Labels|Losses|Matrices|Networks|Norms|Numbers|"
    r"Outputs|Parameters|Perceptrons|Pixels|Policies|Rates|Rows|Sentences|Sequences|Signals|"
    r"Slices|Tables|Tasks|Tensors|Texts|Tokens|Transformers|Values|Vectors|Weights|Words"
)
"""Plurals that are no verbs, or seldom: a text that begins with one describes a thing."""

VERB = re.compile(r"([A-Z][a-z]+(?:-[a-z]+)?s)\b(?!,? of\b)")
"""A word in the third person; "Copies of ..." and "Steps of ..." describe things."""


def begins_with_a_verb(text: str) -> bool:
    found = VERB.match(text)
    return found is not None and (not NOUNS.fullmatch(found[1]) or text.startswith(("Bounds the", "Numbers the")))


@pytest.mark.parametrize(
    "text",
    ["Slices of a tensor.", "Steps of a run.", "Rows, of which some count.", "Weights, (N,).", "A network."],
)
def test_a_noun_is_no_verb(text):
    assert not begins_with_a_verb(text)


@pytest.mark.parametrize("path", [*PATHS, *sorted((ROOT / "benchmarks").rglob("*.py"))], ids=module_of)
def test_a_function_and_a_class_are_described_by_a_verb(path):
    """In the third person, "Returns ..."; a property is described as the attribute that it looks like."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and not is_property(node)):
            text = ast.get_docstring(node)
            assert text is None or begins_with_a_verb(text), f"{path}:{node.lineno}: {text}"
