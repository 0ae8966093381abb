"""The action, its sample workflow and the other actions that they use, for the tests of both."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = ROOT / "action.yml"
WORKFLOW = ROOT / "samples" / "ci" / "harden.yml"
SYSTEM = os.pathsep.join(["/usr/bin", "/bin"])

SETUP = "actions/setup-python@ece7cb06caefa5fff74198d8649806c4678c61a1"
CACHE = "0057852bfaa89a56745cba8c7296529d2fc39830"
CACHES: dict[str, dict[str, str]] = {f"actions/cache{kind}@{CACHE}": {} for kind in ("", "/restore", "/save")}
UPLOAD = "actions/upload-artifact@b7c566a772e6b6bfb58ed0dc250532a479d7789f"

FILES = {
    "model": "out/hardened.onnx",
    "analysis": "out/analysis.cloak.json",
    "evaluation": "out/evaluation.json",
    "attestation": "out/attestation.json",
    "summary": "out/summary.md",
    "report": "out/report.html",
}

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="the action's steps are for bash")


def action() -> dict[str, Any]:
    return yaml.safe_load(ACTION.read_text(encoding="utf-8"))


def workflow() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
