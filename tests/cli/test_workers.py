"""``--workers``: where it comes from, what is said of it, and runs that are killed and go on with as many or others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from tests.attacks.helpers import DIGITS, digits_arrays

from .conftest import Run

SAID = "2 batches at a time, each in sessions of 1 intra-op thread(s)"
ATTACK = ("attack", "m.onnx", "--data", "clean.npz", "--attack", "pgd", "--eps", "0.1", "--batch-size", "2")


def test_where_it_comes_from(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option, else the environment, else the file."""
    assert SAID not in run(*ATTACK, "-o", "a.npz").err
    assert SAID in run(*ATTACK, "-o", "b.npz", "--workers", "2").err
    (folder / "cloakonnx.toml").write_text("workers = 2\n")
    assert SAID in run(*ATTACK, "-o", "c.npz").err
    monkeypatch.setenv("CLOAKONNX_WORKERS", "3")
    found = run(*ATTACK, "-o", "d.npz", "--json")
    assert "3 batches at a time" in found.err
    assert json.loads(found.out)["workers"] == 3
    assert SAID not in run(*ATTACK, "-o", "e.npz", "--workers", "1").err
    same = [(folder / f"{name}.npz").read_bytes() for name in "bcd"]
    assert same[0] == same[1] == same[2]
    monkeypatch.setenv("CLOAKONNX_WORKERS", "none")
    wrong = run(*ATTACK, "-o", "f.npz")
    assert wrong.code == 2
    assert "--workers" in wrong.err
    assert "'none'" in wrong.err


def test_resume_wants_the_same_number_of_threads(run: Run, folder: Path) -> None:
    """Results record it, so batches of both kinds do not go into one file."""
    parts = folder / ".a.npz.parts"
    assert run(*ATTACK, "-o", "a.npz").code == 0
    settings = json.loads(str(np.load(folder / "a.npz")["settings"]))
    parts.mkdir()
    (parts / "settings.json").write_text(
        json.dumps({**{key: value for key, value in settings.items() if key != "labels"}, "format": 2})
    )
    found = run(*ATTACK, "-o", "a.npz", "--force", "--resume", "--workers", "2")
    assert found.code == 2
    assert "other settings (threads)" in found.err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a hardened model and data for runs that take a few seconds."""
    folder: Path = tmp_path_factory.mktemp("workers")
    weights = np.ones(64, np.float32)
    weights[[3, 17, 40, 41]] = 0
    harden_file(load(DIGITS), [Mask("/6/Relu_output_0", weights)], folder / "m.onnx")
    x, y = digits_arrays()
    np.savez(folder / "clean.npz", x=x[:120], y=y[:120])
    return folder


COMMANDS = {
    "attack": ("attack", "m.onnx", "--attack", "square", "--max-iter", "400", "-o", "out.npz"),
    "evaluate": ("evaluate", "m.onnx", "--attack", "square", "--max-iter", "150", "--no-sanity", "-o", "out.json"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("workers", [(1, 1), (2, 2), (2, 3)], ids=str)
@pytest.mark.parametrize("verb", COMMANDS)
def test_killed_and_resumed(place: Path, verb: str, workers: tuple[int, int]) -> None:
    """The bytes of a run that was not killed."""
    *words, name = COMMANDS[verb]
    output = place / name
    command = [
        *(sys.executable, "-m", "cloakonnx", *words, name, "--data", "clean.npz", "--eps", "0.02"),
        *("--batch-size", "12", "--force"),
    ]
    subprocess.run([*command, "--workers", str(workers[0])], cwd=place, check=True, capture_output=True)
    whole = output.read_bytes()
    output.unlink()
    killed = subprocess.Popen(
        [*command, "--workers", str(workers[0])], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    parts = place / f".{name}.parts"
    while killed.poll() is None and len(list(parts.glob("0*.npz"))) < 3:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not output.exists()
    kept = len(list(parts.glob("0*.npz")))
    assert 3 <= kept <= 10
    subprocess.run([*command, "--workers", str(workers[1]), "--resume"], cwd=place, check=True, capture_output=True)
    assert output.read_bytes() == whole
    assert not parts.exists()
