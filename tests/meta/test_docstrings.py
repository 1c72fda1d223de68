"""The examples in the docstrings of meta-training run."""

import doctest
import importlib
import pkgutil

import pytest

import metalr.meta

MODULES = [module.name for module in pkgutil.walk_packages(metalr.meta.__path__, "metalr.meta.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize(
    "door", ["MetaLearner", "TaskDistribution", "TaskFamily", "GradientEstimator", "HeldOutTask", "Net", "rollout"]
)
def test_a_public_door_has_an_example(door):
    assert doctest.DocTestFinder(recurse=False).find(getattr(metalr.meta, door))[0].examples
