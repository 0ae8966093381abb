"""Runs the command line in this process, as a user would see it, in a folder with a small model and data."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cloakonnx.cli.main import main
from tests.fixtures import core
from tests.support.signals import same_handlers


class Result(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Result]

PGD = ("attack", "m.onnx", "--data", "clean.npz", "--attack", "pgd", "--eps", "0.1", "-o", "adv.npz")
"""What makes an attack in ``folder``; options that follow count instead of these."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a verb; what C++ prints is captured too."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["cloakonnx", *map(str, arguments)])
        capfd.readouterr()
        with same_handlers(), pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Result(ended.value.code, out, err)

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: m.onnx takes (N, 4) and has 3 classes; clean.npz and adversarial.npz go with it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(core.mlp().SerializeToString())
    rng = np.random.default_rng(0)
    clean = rng.random((12, 4)).astype(np.float32)
    adversarial = np.clip(clean + rng.uniform(-0.1, 0.1, clean.shape), 0, 1).astype(np.float32)
    labels = np.arange(12) % 3
    np.savez(tmp_path / "clean.npz", x=clean, y=labels)
    np.savez(tmp_path / "adversarial.npz", x=adversarial, y=labels)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder with its content."""
    return {os.path.relpath(path, folder): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
