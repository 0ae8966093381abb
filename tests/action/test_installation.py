"""The action's first steps install the package into an environment of its own."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from .conftest import CACHES, ROOT, SETUP, SYSTEM, UPLOAD, needs_bash
from .runner import Runner

pytestmark = needs_bash

PIP = "python -m pip install --quiet --disable-pip-version-check"

FAKE_PYTHON = r"""#!/bin/bash
# Makes an environment whose pip makes a cloakonnx; notes what it was asked for.
printf '%s\n' "$0 $*" >> {notes}
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip install "*) printf '#!/bin/sh\necho "$0 $*" >> {notes}; echo null\n' > "$(dirname "$0")/cloakonnx"
                      chmod +x "$(dirname "$0")/cloakonnx" ;;
  *) exec {real} "$@" ;;
esac
"""


@pytest.mark.parametrize("given", [True, False])
def test_installs_into_an_environment_of_its_own(tmp_path: Path, given: bool) -> None:
    notes, python = tmp_path / "notes", tmp_path / "my python"
    text = FAKE_PYTHON.replace("{notes}", shlex.quote(str(notes)))
    python.write_text(text.replace("{real}", shlex.quote(sys.executable)))
    python.chmod(0o755)
    folder = tmp_path / "with a space"
    folder.mkdir()
    runner = Runner(folder, SYSTEM)
    inputs = {"model": "m.onnx", "python": str(python) if given else "", "python-version": "3.13"}
    ran = runner.run(ROOT, inputs, others={SETUP: {"python-path": str(python)}, UPLOAD: {}, **CACHES})
    assert ran.passed, [step.said for step in ran.steps]
    assert ran.step("python").conclusion == ("skipped" if given else "success")
    assert given or ran.step("python").given["python-version"] == "3.13"
    home = runner.temp / "cloakonnx"
    named, made, pinned, installed, called, read = notes.read_text().splitlines()
    assert named == f"{python} -I -X utf8 -"
    assert made == f"{python} -m venv {home}/venv"
    hashed = f"--require-hashes --only-binary :all: --requirement {ROOT}/samples/ci/pip.txt"
    assert pinned == f"{home}/venv/bin/{PIP} {hashed}"
    assert installed == f"{home}/venv/bin/{PIP} {ROOT}[report,sign]"
    assert called == f"{home}/bin/cloakonnx harden --json --output=hardened -- m.onnx"
    assert read.startswith(f"{home}/venv/bin/python -I -X utf8 - ")
    assert [path.name for path in (home / "bin").iterdir()] == ["cloakonnx"]


def test_an_installation_that_fails_fails_the_action(tmp_path: Path) -> None:
    runner = Runner(tmp_path, SYSTEM)
    ran = runner.run(ROOT, {"model": "m.onnx"}, others={SETUP: {"python-path": "/bin/false"}, UPLOAD: {}, **CACHES})
    assert [step.conclusion for step in ran.steps] == ["success", "failure"] + ["skipped"] * 8
    assert not ran.passed
