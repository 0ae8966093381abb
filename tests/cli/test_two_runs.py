"""Two runs into one output: the second says so at once, and the first goes on; a killed run's lock keeps nobody out."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloakonnx.files import claimed
from cloakonnx.runtime.session import Session

from .conftest import Run, files

ATTACK = "attack m.onnx --data clean.npz --attack fgsm --eps 0.1 -o o.npz"
MASK = "--mask mask.npy --tap features"
VERBS = {
    ATTACK: "o.npz",
    "analyze m.onnx --data clean.npz --adversarial adversarial.npz -o o.json": "o.json",
    "learn m.onnx --data clean.npz --eps 0.1 --budget 4% -o o.json": "o.json",
    f"apply m.onnx {MASK} -o o.onnx": "o.onnx",
    f"apply m.onnx {MASK} -o o.onnx --attestation o.json": "o.json",
    "strip h.onnx -o o.onnx": "o.onnx",
    "evaluate h.onnx --data clean.npz --eps 0.1 -o o.json": "o.json",
    "evaluate h.onnx --data clean.npz --eps 0.1 --samples o.npz": "o.npz",
    "sweep m.onnx --analysis a.json --data clean.npz --adversarial adversarial.npz -o o.json": "o.json",
    "harden m.onnx --data clean.npz --eps 0.1 -o o": "o/.stages/run",
}


@pytest.fixture
def ready(folder: Path, run: Run) -> Path:
    np.save("mask.npy", np.array([0, 1, 1, 1, 1, 1], np.float32))
    assert (
        run(*["analyze", "m.onnx", "--data", "clean.npz", "--adversarial", "adversarial.npz", "-o", "a.json"]).code == 0
    )
    assert run("apply", "m.onnx", *MASK.split(), "-o", "h.onnx").code == 0
    return folder


@pytest.mark.parametrize("line", VERBS)
def test_the_second_says_so_at_once(line: str, ready: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a session was made")

    monkeypatch.setattr(Session, "__init__", refuse)
    output = Path(VERBS[line])
    output.parent.mkdir(parents=True, exist_ok=True)
    with claimed(output):
        before = files(ready)
        result = run(*line.split())
        assert (result.code, result.out) == (2, "")
        assert result.err.endswith("another run is writing it; wait until that has ended, or name another\n")
        assert files(ready) == before
    assert not output.with_name(f".{output.name}.lock").exists()


SCRIPT = """
import time
from pathlib import Path
import numpy as np

def batches():
    Path("begun").touch()
    while not Path("go on").exists():
        time.sleep(0.01)
    yield np.full((4, 4), 0.5, np.float32), np.arange(4) % 3
"""


def test_two_attacks(ready: Path, run: Run) -> None:
    (ready / "script.py").write_text(SCRIPT)
    line = [
        "attack",
        "m.onnx",
        "--data-script",
        "script.py:batches",
        "--attack",
        "fgsm",
        "--eps",
        "0.1",
        "--workers",
        "1",
        "-o",
        "o.npz",
    ]
    command = [sys.executable, "-m", "cloakonnx", *line]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as first:
        while not (ready / "begun").exists() and first.poll() is None:
            pass
        second = run(*ATTACK.split())
        (ready / "go on").touch()
        _, said = first.communicate(timeout=60)
    assert second.code == 2
    assert "another run is writing it" in second.err
    assert first.returncode == 0, said
    assert np.load("o.npz")["x"].shape == (4, 4)
    assert not [name for name in files(ready) if name.startswith(".o.npz")]


def test_a_killed_run_keeps_nobody_out(ready: Path, run: Run) -> None:
    script = "import os, signal; from pathlib import Path; from cloakonnx.files import claimed\n"
    script += "with claimed(Path('o.npz')): os.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert (ready / ".o.npz.lock").exists()
    assert run(*ATTACK.split()).code == 0
    assert not (ready / ".o.npz.lock").exists()


def test_a_file_system_without_locks(ready: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert run(*ATTACK.split()).code == 0
    assert not (ready / ".o.npz.lock").exists()
