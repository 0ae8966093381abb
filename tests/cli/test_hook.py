"""The pre-commit hook: its file is what pre-commit reads, and its entry judges the files that it is given."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
from onnx import ModelProto

from .conftest import Run

HOOKS = Path(__file__).parents[2] / ".pre-commit-hooks.yaml"


def hook() -> dict[str, str]:
    lines = HOOKS.read_text().splitlines()
    assert lines[0].startswith("- ") and all(line.startswith("  ") for line in lines[1:])
    return dict(line[2:].split(": ", 1) for line in lines)


def test_what_pre_commit_needs() -> None:
    assert {"id", "name", "entry", "language"} <= set(hook())
    assert hook()["language"] == "python"
    for name in ("models/m.hardened.onnx", "m-hardened/hardened.onnx", "hardened.onnx"):
        assert re.search(hook()["files"], name)
    assert not re.search(hook()["files"], "models/unhardened.onnx")
    assert not re.search(hook()["files"], "models/m.onnx")


def test_entry(run: Run, folder: Path) -> None:
    command, *arguments = shlex.split(hook()["entry"])
    assert command == "cloakonnx"
    np.save(folder / "a.npy", np.array([0, 1, 0.5, 2, 0, 1]))
    for name in ("a", "b"):
        made = f"{name}.hardened.onnx"
        assert run("apply", "m.onnx", "--mask", "a.npy", "--tap", "features", "-o", made).code == 0
    assert run(*arguments, "a.hardened.onnx", "b.hardened.onnx").code == 0
    model = ModelProto.FromString((folder / "b.hardened.onnx").read_bytes())
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    (folder / "b.hardened.onnx").write_bytes(model.SerializeToString())
    found = run(*arguments, "a.hardened.onnx", "b.hardened.onnx")
    assert found.code == 1
    assert "cloakonnx: b.hardened.onnx failed verification" in found.err
    (folder / "b.hardened.onnx").write_bytes((folder / "m.onnx").read_bytes())
    found = run(*arguments, "b.hardened.onnx", "a.hardened.onnx", "none.onnx")
    assert found.code == 2
    assert "a.hardened.onnx: masks in place" in found.out
    assert "b.hardened.onnx carries no cloakonnx masks" in found.err
    assert "no file none.onnx" in found.err
