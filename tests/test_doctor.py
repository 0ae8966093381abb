"""The check of an installation: what it finds here, and what it says of broken ones."""

from __future__ import annotations

import importlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cloakonnx import doctor
from cloakonnx.cli.doctor import command
from cloakonnx.doctor import EXTRAS, REQUIRED, examine
from cloakonnx.runtime.packages import RUNTIMES, versions

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {each.split(";")[0].split(">")[0].split("[")[0].strip() for each in requirements}


def with_packages(monkeypatch: pytest.MonkeyPatch, *, missing: tuple[str, ...] = (), runtimes: dict[str, str]) -> None:
    def found(asked: tuple[str, ...] = RUNTIMES) -> dict[str, str]:
        if asked == RUNTIMES:
            return runtimes
        return {name: number for name, number in versions(asked).items() if name not in missing}

    monkeypatch.setattr(doctor, "versions", found)


def test_it_asks_for_what_the_package_declares() -> None:
    assert names(PROJECT["dependencies"]) == {*REQUIRED, "onnxruntime", "onnxruntime-gpu"}
    optional = {name: names(needed) for name, needed in PROJECT["optional-dependencies"].items() if needed}
    assert {name: names(list(needed)) for name, needed in EXTRAS.items()} == {
        name: needed for name, needed in optional.items() if name not in {"cuda", "dev", "docs"}
    }


def test_here() -> None:
    found = examine()
    assert found.usable and found.problems == []
    assert found.provider is not None and found.provider in [each.name for each in found.providers if each.loads]
    assert found.gradient is not None and found.gradient.passed
    assert found.cores >= 1 and found.memory is not None and found.memory > 2**28
    assert found.runtimes == versions()


@pytest.mark.parametrize("version", ["2.49.0", None])
def test_ray(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    def found(asked: tuple[str, ...] = RUNTIMES) -> dict[str, str]:
        there = {"ray": version} if version else {}
        return {name: number for name, number in {**versions(asked), **there}.items() if name in asked}

    monkeypatch.setattr(doctor, "versions", found)
    if version is None and versions(("ray",)):
        pytest.skip("Ray is installed here")
    said = CliRunner().invoke(command, []).output
    assert f"Ray            {version or 'not installed: --engine ray needs it'}\n" in said
    assert ('to install     pip install "ray[client]"' in said) == (version is None)
    assert examine().ray == version


def test_printed_and_as_json() -> None:
    said = CliRunner().invoke(command, [])
    assert said.exit_code == 0
    assert said.output.splitlines()[-1] == "usable"
    assert "CPUExecutionProvider loads" in said.output
    content = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert content["usable"] is True
    assert content["gradient"]["passed"] is True
    assert {"name": "CPUExecutionProvider", "loads": True} in content["providers"]


def test_two_runtimes_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch, runtimes={"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"})
    found = examine()
    assert found.usable
    assert "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files" in found.warnings
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu" in found.install


def test_a_missing_package_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with_packages(monkeypatch, missing=("rich", "msgspec", "pyarrow"), runtimes=versions())
    found = examine()
    assert found.problems == ["missing: msgspec, rich"]
    assert found.install[0] == "pip install msgspec rich"
    assert "pip install pyarrow" in found.install
    assert not [each for each in found.install if "cloakonnx" in each], "it brings the other package of ONNX Runtime"
    assert CliRunner().invoke(command, []).exit_code == 1


def test_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return importing(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with_packages(monkeypatch, runtimes={})
    found = examine()
    assert (found.providers, found.provider, found.gradient) == ([], None, None)
    assert found.problems == ["ONNX Runtime is not installed"]
    assert "pip install onnxruntime" in found.install
    said = CliRunner().invoke(command, [])
    assert said.exit_code == 1
    assert said.output.splitlines()[-1] == "not usable"
    with_packages(monkeypatch, runtimes={"onnxruntime": "1.32.0"})
    (problem,) = examine().problems  # installed, but broken
    assert problem == "onnxruntime can't be imported (ImportError: No module named 'onnxruntime')"


def test_a_wrong_gradient_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    from cloakonnx.classifier.classifier import Classifier

    right = Classifier.gradient
    monkeypatch.setattr(Classifier, "gradient", lambda *given, **named: -0.5 * right(*given, **named))
    found = examine()
    assert not found.usable
    assert found.problems[0].startswith("the test gradient is wrong: length ")


def test_a_card_that_is_not_used_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(doctor, "_providers", lambda: ([], "CPUExecutionProvider"))
    with_packages(monkeypatch, runtimes={"onnxruntime": "1.32.0"})
    found = examine()
    assert found.warnings == ["there is an NVIDIA driver, but ONNX Runtime does not load CUDA"]
    assert 'pip uninstall -y onnxruntime && pip install "onnxruntime-gpu[cuda,cudnn]"' in found.install
