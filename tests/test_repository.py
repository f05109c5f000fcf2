"""The files in .github, by which the project is checked and reported to."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
ELEMENTS = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_is_bounded_and_has_no_credentials(path):
    workflow = read(path)
    # YAML 1.1 reads the key "on" as True.
    assert workflow["name"] and workflow[True]
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text(encoding="utf-8")
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert 0 < job["timeout-minutes"] <= 90


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_runs_commands_that_exist(path):
    workflow = read(path)
    # Without it, the Makefile prefers python3.11 to the version that was set up.
    assert workflow["env"]["PYTHON"] == "python"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"actions/[a-z-]+@v\d+", step.get("uses", "actions/x@v1"))
        if (command := step.get("run", "")).startswith("make "):
            assert command.removeprefix("make ") in targets


def test_checks_run_on_the_supported_versions_of_python():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ci = read(GITHUB / "workflows" / "ci.yml")
    versions = ci["jobs"]["checks"]["strategy"]["matrix"]["python"]
    start = "Programming Language :: Python :: "
    declared = [c.removeprefix(start) for c in project["classifiers"] if start in c]
    assert versions == [version for version in declared if "." in version]
    assert project["requires-python"] == f">={versions[0]}"
    assert ".ci/run" in [step.get("run") for step in steps(ci)]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_form_is_valid(path):
    form = read(path)
    assert form.keys() == {"name", "description", "labels", "body"}
    assert {element["type"] for element in form["body"]} <= ELEMENTS
    fields = [element for element in form["body"] if element["type"] != "markdown"]
    assert all(element["attributes"]["label"] for element in fields)
    assert len({element["id"] for element in fields}) == len(fields)
    assert any(element.get("validations") for element in fields)


def test_dependabot_leaves_the_floors_alone():
    settings = read(GITHUB / "dependabot.yml")
    updates = {one["package-ecosystem"]: one for one in settings["updates"]}
    assert settings["version"] == 2
    assert updates.keys() == {"github-actions", "pip"}
    assert updates["pip"]["exclude-paths"] == ["constraints-floor.txt"]
    assert (ROOT / "constraints-floor.txt").exists()
