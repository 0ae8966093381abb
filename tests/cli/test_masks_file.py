"""Masks too large for the analysis lie beside it: every verb that reads or writes an analysis reads or writes both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import cloakonnx as ck
from cloakonnx.scoring import _masks
from tests.attacks.helpers import DIGITS
from tests.selection.helpers import digits_arrays, training_arrays
from tests.support.classifiers import cpu

from .conftest import Run

pytest.importorskip("sklearn")

LEARN = ("--eps", "2/16", "--budget", "4%", "--epochs", "1", "--force", "--granularity", "kernel")
DATA = ("--data", "test.npz")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, where masks over 1,000 bytes are large."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_masks, "_MOST_INSIDE", 1000)
    (tmp_path / "m.onnx").write_bytes(DIGITS.read_bytes())
    for name, (x, y), count in (("train", training_arrays(), 150), ("test", digits_arrays(), 40)):
        np.savez(tmp_path / f"{name}.npz", x=x[:count], y=y[:count])
    return tmp_path


def test_every_verb_reads_both(run: Run, place: Path) -> None:
    assert run("learn", "m.onnx", "--data", "train.npz", *LEARN).code == 0
    content = json.loads((place / "m.cloak.json").read_text())
    assert content["masks_file"]["name"] == "m.cloak.masks.npz"
    assert not any("data" in mask for mask in content["masks"])
    assert run("apply", "m.onnx", "--attestation", "att.json").code == 0
    listed = json.loads(run("inspect", "m.hardened.onnx", "--json").out)["weight_masks"]
    assert len(listed) == len(content["masks"])
    given = ("--analysis", "m.cloak.json")
    assert run("verify", "m.hardened.onnx", "--source", "m.onnx", "--attestation", "att.json", *given).code == 0
    radius = ("--eps", "1/16", "--attack", "fgsm", "--no-sanity")
    assert run("evaluate", "m.hardened.onnx", *DATA, *radius, *given, "-o", "e.json").code == 0
    assert run("report", "e.json", *given, "-o", "r.html").code == 0
    assert "adversarial samples are needed" in run("sweep", "m.onnx", *DATA, *given).err, "the analysis was read"
    assert not list(place.glob(".*"))
    (place / "m.cloak.masks.npz").write_bytes(b"PK other")
    for verb in (
        ("apply", "m.onnx", "--force"),
        ("verify", "m.hardened.onnx", "--source", "m.onnx", *given),
        ("evaluate", "m.hardened.onnx", *DATA, *radius, *given, "-o", "e.json", "--force"),
        ("report", "e.json", *given, "-o", "r.html", "--force"),
        ("sweep", "m.onnx", *DATA, *given),
    ):
        done = run(*verb)
        assert done.code == 2, verb
        assert "m.cloak.masks.npz is not the file of masks that" in done.err.splitlines()[-1], verb


def test_a_file_that_is_there_is_not_written_over(run: Run, place: Path) -> None:
    (place / "m.cloak.masks.npz").write_bytes(b"mine")
    done = run("learn", "m.onnx", "--data", "train.npz", *[each for each in LEARN if each != "--force"])
    assert done.code == 2
    assert "m.cloak.masks.npz exists already" in done.err
    assert (place / "m.cloak.masks.npz").read_bytes() == b"mine"
    assert run("learn", "m.onnx", "--data", "train.npz", *LEARN).code == 0
    assert run("apply", "m.onnx").code == 0


def test_harden_keeps_both(place: Path) -> None:
    asked = {"eps": 0.15, "method": "greedy", "attack": "fgsm", "select_data": "train.npz", "report_data": "test.npz"}
    _masks._MOST_INSIDE = 100  # put back by the fixture
    ck.harden(cpu("m.onnx"), "train.npz", **asked)
    out = place / "m-hardened"
    beside = out / "analysis.cloak.masks.npz"
    first = beside.read_bytes()
    assert beside.name in json.loads((out / ".stages" / "greedy.json").read_text())["files"]
    beside.unlink()
    done = ck.harden(cpu("m.onnx"), "train.npz", **asked)
    assert beside.read_bytes() == first
    assert done.files["analysis"].name == "analysis.cloak.json"
