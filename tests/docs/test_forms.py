"""Files that GitHub reads: issue forms follow their published schemas, the citation is of this version."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
import yaml

from .pages import ROOT, read

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.parametrize("kind", ["forms", "config"])
def test_issue_forms_follow_their_schema(kind: str) -> None:
    paths = [path for path in FORMS if (path.stem == "config") == (kind == "config")]
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.github-issue-{kind}", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_form_for_each_reason() -> None:
    assert {path.stem for path in FORMS} == {"bug", "model", "question", "config"}


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["authors"] == [{"name": "cloakonnx maintainers"}]
    (paper,) = citation["references"]
    assert paper["url"] in read(ROOT / "README.md")
