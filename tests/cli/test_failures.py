"""With --json a failure is an object on stdout too; --quiet leaves warnings and errors; --verbose shows every table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask

from .conftest import Run

PAIRS = ("--data", "clean.npz", "--adversarial", "adversarial.npz")
EVALUATE = ("evaluate", "h.onnx", "--data", "clean.npz", "--eps", "0.1", "--attack", "fgsm", "--no-sanity")


@pytest.fixture
def masked(folder: Path) -> Path:
    """Return the folder with a hardened model, h.onnx."""
    harden_file(load("m.onnx"), [Mask("features", np.array([0, 1, 1, 1, 1, 1], np.float32))], "h.onnx")
    return folder


@pytest.mark.parametrize(
    ("arguments", "kind", "hint"),
    [
        (("apply", "nope.onnx"), "model", None),
        (("apply", "m.onnx", "--foo"), "usage", "apply --help'"),
        (("analyze", "m.onnx", *PAIRS, "--tap", "nope"), "tap", None),
        (("analyze", "m.onnx", *PAIRS, "--feature-axis", "x"), "usage", "analyze --help'"),
        (("gate", "m.onnx", "--require", "flags==0"), "", None),
        (("gate", "m.onnx", "--require", "nope"), "option", "there are clean"),
        (("attack", "m.onnx", "--data", "no.npz", "--attack", "fgsm", "--eps", "0.1", "-o", "o.npz"), "data", None),
        (("strip", "m.onnx"), "model", None),
    ],
)
def test_a_failure_as_json(run: Run, folder: Path, arguments: tuple[str, ...], kind: str, hint: str | None) -> None:
    plain, told = run(*arguments), run(*arguments, "--json")
    assert (plain.code, plain.out) == (2, "")
    assert told.err == plain.err
    found = json.loads(told.out)
    assert found.keys() == {"error", "exit"}
    assert found["exit"] == told.code == 2
    error = found["error"]
    assert error.keys() == {"kind", "message", "hint"}
    assert error["kind"] == (kind or error["kind"])
    assert plain.err.startswith(f"cloakonnx: {error['message']}")
    assert hint is None or hint in error["hint"]


def test_a_failed_check_has_its_kind(run: Run, masked: Path) -> None:
    (masked / "h.onnx").write_bytes((masked / "h.onnx").read_bytes()[:-3])
    done = run("verify", "h.onnx", "--source", "m.onnx", "--json")
    assert done.code == 1
    assert json.loads(done.out)["error"]["kind"] == "check"
    assert json.loads(done.out)["exit"] == 1


def test_json_from_a_settings_file(run: Run, folder: Path) -> None:
    (folder / "cloakonnx.toml").write_text("json = true\n")
    assert json.loads(run("apply", "nope.onnx").out)["error"]["kind"] == "model"


def test_gates_as_numbers(run: Run, masked: Path) -> None:
    gates = ("--require", "robust>=99%", "--require", "clean-drop<=100%")
    done = run(*EVALUATE, *gates[:2], "-o", "e.json", "--json")
    assert done.code == 1
    found = json.loads(done.out)
    (gate,) = found["gates"]
    assert gate["low"] <= gate["value"] <= gate["high"] < gate["limit"] == 0.99
    assert gate["n"] == found["data"]["count"] == 12
    assert gate["needed"] is None
    assert gate["verdict"] == "fail"
    assert json.loads(run("gate", "e.json", *gates[:2], "--json").out) == [gate]
    assert {key: value for key, value in found.items() if key != "gates"} == json.loads(Path("e.json").read_text())


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet(run: Run, masked: Path, flag: str) -> None:
    loud = run(*EVALUATE, "-o", "e.json", "--require", "robust>=0%", "--require", "robust>=99%")
    assert "wrote e.json" in loud.err
    for arguments in ((flag, *EVALUATE), (*EVALUATE, flag)):
        quiet = run(*arguments, "-o", "e.json", "--force", "--require", "robust>=0%", "--require", "robust>=99%")
        assert (quiet.code, quiet.out) == (loud.code, loud.out)
        assert [line for line in quiet.err.splitlines() if not line.startswith("cloakonnx: warning")] == [
            line for line in loud.err.splitlines() if line.startswith("fail")
        ]
