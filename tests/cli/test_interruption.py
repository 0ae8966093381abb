"""A signal ends the command with 130 wherever Python happens to be, and is not lost or answered twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals to itself")

INTERRUPTED = "cloakonnx: interrupted; no output was left half-written"
SCRIPT = """
import atexit, signal, time
import numpy as np

def interrupt():
    signal.raise_signal(signal.{signal})

class Finaliser:
    def __del__(self):
        interrupt()

class Reference:
    pass

def finaliser():
    Finaliser()
    time.sleep(120)

def callback():
    import weakref
    target = Reference()
    kept = weakref.ref(target, lambda _: interrupt())
    del target
    time.sleep(120)

def importing():
    import interrupted_import
    time.sleep(120)

def cleanup():
    try:
        interrupt()
    finally:
        raise ValueError("a half-open file does not close")

def twice():
    try:
        interrupt()
    finally:
        interrupt()
        open("cleaned", "w").close()

class Half:
    # as a zip file whose constructor is interrupted: its finaliser misses what was not made yet

    def __init__(self):
        interrupt()
        self.made = True

    def __del__(self):
        self.made

def half():
    Half()

def half_kept():
    global kept
    kept = Half.__new__(Half)
    kept.__init__()

def late():
    atexit.register(interrupt)

def batches():
    {where}()
    for _ in range(2):
        yield np.ones((2, 4), np.float32)
"""
IMPORTED = """
import script
try:
    script.interrupt()
    import interrupted_too
except KeyboardInterrupt:
    raise ImportError("initialization failed") from None
open("imported", "w").close()
"""
AGAIN = "import time\nuntil = time.monotonic() + 0.1\nwhile time.monotonic() < until: pass\n"


def run_script(folder: Path, where: str, number: str = "SIGINT", before: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(SCRIPT.format(where=where, signal=number))
    (folder / "interrupted_import.py").write_text(IMPORTED)
    (folder / "interrupted_too.py").write_text(AGAIN)
    command = ["sh", "-c", f'{before}exec "$@"', "sh", sys.executable, "-m", "cloakonnx", "analyze", "m.onnx"]
    command += ["--data-script", "script.py:batches", "--adversarial", "adversarial4.npz"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def scripted(folder: Path) -> Path:
    np.savez(folder / "adversarial4.npz", x=np.full((4, 4), 0.9, np.float32))
    return folder


WHERE = ["interrupt", "finaliser", "callback", "importing", "cleanup", "twice", "half", "half_kept"]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("where", WHERE)
def test_wherever_it_comes(scripted: Path, where: str, number: str) -> None:
    ended = run_script(scripted, where, number)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", f"{INTERRUPTED}\n")
    assert not (scripted / "m.cloak.json").exists()
    assert (scripted / "imported").exists() == (where == "importing")
    assert (scripted / "cleaned").exists() == (where == "twice")


def test_what_is_done_is_done(scripted: Path) -> None:
    ended = run_script(scripted, "late")
    assert ended.returncode == 0, ended.stderr
    assert "interrupt" not in ended.stderr
    assert (scripted / "m.cloak.json").exists()


def test_an_ignored_signal_stays_ignored(scripted: Path) -> None:
    ended = run_script(scripted, "interrupt", before="trap '' INT; ")
    assert ended.returncode == 0, ended.stderr


def test_other_unraisable_errors_are_said(scripted: Path) -> None:
    ended = run_script(scripted, "late", "SIGNO")
    assert ended.returncode == 0
    assert "SIGNO" in ended.stderr


STARTS = """
import signal, sys

class Loading:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            signal.raise_signal(signal.{signal})

sys.meta_path.insert(0, Loading())
from cloakonnx.cli import main
sys.argv = ["cloakonnx", "attack", "m.onnx", "--data", "clean.npz", "--attack", "fgsm", "--eps", "0.1", "-o", "o.npz"]
main()
"""


@pytest.mark.parametrize(
    ("name", "number"),
    [("cloakonnx.cli.verbs", "SIGINT"), ("click", "SIGTERM"), ("numpy", "SIGINT"), ("onnxruntime", "SIGTERM")],
)
def test_while_modules_are_loaded(folder: Path, name: str, number: str) -> None:
    command = [sys.executable, "-c", STARTS.format(name=name, signal=number)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    # click answers with an empty line what comes in the few instructions between its start and ours
    (line,) = ended.stderr.strip().splitlines()
    assert (ended.returncode, ended.stdout, line.startswith(INTERRUPTED)) == (130, "", True)
    assert not (folder / "o.npz").exists()


def test_next_to_nothing_is_loaded_before_signals_are_heeded() -> None:
    script = "import re, sys, signal; n = {*sys.modules}; import cloakonnx.cli.main; print(*{*sys.modules} - n)"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    ours = {"cloakonnx", "cloakonnx.cli", "cloakonnx.cli.main", "cloakonnx.cli._interruption"}
    pythons = {name for name in made.stdout.split() if name.startswith(("__future__", "importlib", "warnings", "_"))}
    assert {*made.stdout.split()} - pythons == ours
