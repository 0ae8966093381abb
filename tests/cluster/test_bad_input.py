"""What is wrong with an address is one line on stderr, and exit code 2."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.attacks.helpers import DIGITS, digits_arrays


def test_an_address_that_does_not_answer(tmp_path: Path) -> None:
    x, y = digits_arrays()
    np.savez(tmp_path / "x.npz", x=x[:4], y=y[:4])
    words = ("attack", DIGITS, "--data", "x.npz", "--attack", "fgsm", "--eps", "0.1", "-o", "a.npz")
    command = [sys.executable, "-m", "cloakonnx", *map(str, words), "--engine", "127.0.0.1:9"]
    since = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("cloakonnx: --engine 127.0.0.1:9: no Ray answers there within")
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - since < 120  # Ray itself waits for minutes
    assert not (tmp_path / "a.npz").exists()
