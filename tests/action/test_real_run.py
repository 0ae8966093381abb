"""The action and the sample workflow's commands run with the true command line on the sample model."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.attacks.helpers import DIGITS, digits_arrays
from tests.selection.helpers import training_arrays

from .conftest import CACHES, FILES, ROOT, SETUP, SYSTEM, UPLOAD, action, needs_bash, workflow
from .runner import Ran, Runner

pytestmark = needs_bash


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Return a runner with the true ``cloakonnx``, the sample model and its data.

    Only the installation is left out, for it needs the network: what runs these tests stands in its place.
    """
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("runner")
    (folder / "bin").mkdir()
    command = folder / "bin" / "cloakonnx"
    package = shlex.quote(str(ROOT))
    command.write_text(f'#!/bin/sh\nPYTHONPATH={package} exec {shlex.quote(sys.executable)} -P -m cloakonnx "$@"\n')
    command.chmod(0o755)
    runner = Runner(folder, f"{folder / 'bin'}{os.pathsep}{SYSTEM}")
    (runner.temp / "cloakonnx").mkdir()
    shutil.copy(DIGITS, runner.workspace / "my model.onnx")
    for name, (x, y), rows in (
        ("train", training_arrays(), slice(None)),
        ("select", digits_arrays(), slice(200)),
        ("report", digits_arrays(), slice(200, 400)),
    ):
        np.savez(runner.workspace / f"{name}.npz", x=x[rows], y=y[rows])
    return runner


def use_real(real: Runner, **inputs: str) -> Ran:
    given = {
        "model": "my model.onnx",
        "data": "train.npz",
        "select-data": "select.npz",
        "report-data": "report.npz",
        "eps": "0.09375",
        "preset": "quick",
        "output": "out",
        "args": "--attack=fgsm\n--provider=cpu",
    }
    return real.run(
        ROOT,
        {**given, **inputs},
        others={SETUP: {"python-path": sys.executable}, UPLOAD: {}, **CACHES},
        instead={"install": lambda: {"python": sys.executable}},
    )


def test_a_real_gate_fails_and_another_passes(real: Runner) -> None:
    failed = use_real(real, require="clean-drop<=60%\nrobust-gain>=95%@0.09375\n")
    assert not failed.passed
    assert failed.step("Judge").code == 1, failed.step("harden").said
    assert [gate["verdict"] for gate in json.loads(failed.outputs["gates"])] == ["pass", "fail"]
    for name, path in FILES.items():
        assert failed.outputs[name] == path
        assert (real.workspace / path).stat().st_size > 0
    assert failed.summary == (real.workspace / FILES["summary"]).read_text(encoding="utf-8")
    assert "`robust-gain>=95%@0.09375`" in failed.summary
    assert failed.outputs["verdict"] in {"gain", "doubt", "none", "loss"}
    assert failed.outputs["sentence"] in failed.summary
    assert failed.step("Keep the results").given["path"] == "out"

    passed = use_real(real, require="clean-drop<=60%")
    assert passed.passed, passed.step("harden").said
    assert passed.step("harden").said.count(": as before") >= 5
    assert [gate["verdict"] for gate in json.loads(passed.outputs["gates"])] == ["pass"]
    assert "robust-gain" not in passed.summary.split("### ")[0]


def test_what_the_sample_workflow_ships_is_verified(real: Runner) -> None:
    """The artifacts are laid out as the upload and the download lay them out; the commands are the workflow's."""
    jobs = workflow()["jobs"]
    passed = use_real(real, require="clean-drop<=60%")
    uses = [step for job in jobs.values() for step in job["steps"] if "with" in step]
    uploaded, verified = uses[2]["with"], [step["run"] for step in jobs["ship"]["steps"] if "run" in step][1]
    assert uploaded["path"] == "${{ steps.harden.outputs.model }}"
    assert [step["with"]["name"] for step in uses if "download-artifact" in step["uses"]] == [
        uploaded["name"],
        action()["inputs"]["artifact-name"]["default"],
    ]
    folder = real.workspace / "ship"
    shutil.copytree(real.workspace / "out", folder / "results", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(real.workspace / passed.outputs["model"], folder)
    env = {"PATH": real.path}
    assert subprocess.run(["bash", "-e", "-c", verified], cwd=folder, env=env, check=False).returncode == 0
    path = folder / "hardened.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert subprocess.run(["bash", "-e", "-c", verified], cwd=folder, env=env, check=False).returncode == 1


def test_real_bad_input(real: Runner) -> None:
    ran = use_real(real, model="my_model.onnx", output="other")
    assert ran.step("Judge").code == 2
    assert ran.summary.endswith("    cloakonnx: no file my_model.onnx; did you mean 'my model.onnx'?\n")
    assert not (real.workspace / "other").exists()


def test_a_real_evaluation_and_a_real_check(real: Runner) -> None:
    (real.workspace / "cloakonnx.toml").write_text(
        "data = 'report.npz'\neps = '0.09375'\nattack = 'fgsm'\n"
        "[[models]]\npath = 'my model.onnx'\nname = 'm'\nrequire = ['clean>=80%', 'robust>=99%']\n"
    )
    for mode, named in (("evaluate", "my model.onnx: clean>=80%"), ("check", "m: clean>=80%")):
        ran = real.run(
            ROOT,
            {"mode": mode, "output": mode}
            | ({"model": "my model.onnx", "require": "clean>=80%\nrobust>=99%"} if mode == "evaluate" else {}),
            others={SETUP: {"python-path": sys.executable}, UPLOAD: {}, **CACHES},
            instead={"install": lambda: {"python": sys.executable}},
        )
        assert ran.step("Judge").code == 1, ran.step("harden").said
        assert [gate["verdict"] for gate in json.loads(ran.outputs["gates"])] == ["pass", "fail"]
        assert f"    pass         {named}: " in ran.summary
    assert ran.outputs["report"] == ""
    written = {
        path.relative_to(real.workspace).as_posix()
        for each in ("evaluate", "check")
        for path in (real.workspace / each).iterdir()
    }
    assert written == {
        "evaluate/evaluation.json", "evaluate/report.html", "evaluate/summary.md", "check/m.json", "check/gates.xml",
        "check/summary.md",
    }  # fmt: skip
    (real.workspace / "cloakonnx.toml").unlink()
