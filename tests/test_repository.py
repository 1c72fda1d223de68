"""What surrounds the code: workflows, forms and the files that a host of repositories reads."""

import re
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")


def read(path: Path) -> dict:
    """YAML in which `on` is a word, as GitHub reads it, and not the truth value that YAML 1.1 makes of it."""
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


def jobs(path: Path) -> list[dict]:
    return list(read(path)["jobs"].values())


def steps(path: Path) -> list[dict]:
    return [step for job in jobs(path) for step in job["steps"]]


def test_every_yaml_parses():
    paths = [*ROOT.glob("*.y*ml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff", *GITHUB.rglob("*.yml")]
    assert len(paths) > 8
    for path in paths:
        if path.name != "mkdocs.yml":  # with tags of its own; the site's build reads it
            assert yaml.safe_load(path.read_text()), path


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_whole(path):
    workflow = read(path)
    assert {"name", "on", "permissions", "jobs"} <= set(workflow)
    assert workflow["permissions"] == {"contents": "read"}  # a job asks for more itself
    for job in jobs(path):
        assert job["timeout-minutes"] <= 45
        assert job["steps"]
    for step in steps(path):
        assert ("run" in step) != ("uses" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", step["uses"]), "pin a major version"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflows_make_targets_are_real(path):
    makefile = (ROOT / "Makefile").read_text()
    commands = [found for step in steps(path) for found in re.findall(r"\bmake (.+)", step.get("run", ""))]
    assert commands
    for command in commands:
        target, *settings = command.split()
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
        for setting in settings:
            assert re.search(rf"^{setting.split('=')[0]} \?= ", makefile, flags=re.MULTILINE), setting


def test_every_python_version_of_the_classifiers_is_tested():
    tested = read(GITHUB / "workflows" / "test.yml")["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    prefix = "Programming Language :: Python :: 3."
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if line.startswith(prefix)]
    assert tested == named
    assert PROJECT["requires-python"] == f">={tested[0]}"


def test_every_test_and_the_lowest_versions_are_run():
    runs = [step["run"] for step in steps(GITHUB / "workflows" / "test.yml") if "run" in step]
    assert any(re.match(r"make test( |$)", run) for run in runs)
    assert any("RESOLUTION=lowest-direct" in run for run in runs)
    assert any(run.startswith("make docs") for run in runs)


def test_a_release_is_checked_before_it_is_published():
    """By trusted publishing: no password or token is named anywhere."""
    release = read(GITHUB / "workflows" / "release.yml")
    assert release["on"] == {"push": {"tags": ["v*"]}}
    assert release["jobs"]["publish"]["needs"] == "build"
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    text = (GITHUB / "workflows" / "release.yml").read_text()
    assert "secrets." not in text
    assert "password" not in text


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_is_whole(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in fields}) == len(fields)
    assert all(part["attributes"]["label"] for part in fields if part["type"] != "checkboxes")
    assert any(part.get("validations", {}).get("required") for part in fields)


def test_the_forms_are_those_for_bugs_questions_and_features():
    assert [path.stem for path in FORMS] == ["bug", "feature", "question"]


def test_dependabot_watches_the_packages_and_the_actions():
    updates = read(GITHUB / "dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"pip", "github-actions"}


def test_the_citation_is_the_projects():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert "version" not in citation  # written once, in metalr/__init__.py
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Homepage"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert citation["keywords"] == PROJECT["keywords"]


def test_every_url_of_the_project_is_below_its_home():
    home = PROJECT["urls"]["Homepage"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())
