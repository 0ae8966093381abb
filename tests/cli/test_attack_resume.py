"""``cloakonnx attack --resume`` after an interrupt, and with something changed since then."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from .conftest import PGD, Run, files


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT and SIGKILL")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_resume_after_an_interrupt(folder: Path, run: Run, how: signal.Signals) -> None:
    """Whatever batch it comes at; twice in a row; with two eps, so that the first or the second is under way."""
    np.savez(folder / "clean.npz", x=np.random.default_rng(0).random((200, 4)).astype(np.float32))
    options = ("--attack", "square", "--max-iter", "60", "--batch-size", "4", "--eps", "0.01,0.1")
    assert run(*PGD, *options, "-o", "whole.npz").code == 0
    command = [sys.executable, "-m", "cloakonnx", *PGD, *options, "--resume"]
    rng = random.Random(int(how))
    for _ in range(2):
        wanted = rng.randrange(3, 45)
        with subprocess.Popen(command, cwd=folder, stderr=(folder / "log").open("w")) as child:
            end = time.monotonic() + 60
            while len(list(folder.glob(".adv.*.parts/0*.npz"))) < wanted and time.monotonic() < end:
                time.sleep(0.001)
            os.kill(child.pid, how)
            code = child.wait()
        assert code == (130 if how is signal.SIGINT else -how), (folder / "log").read_text()
        assert not list(folder.glob("adv.*"))
        assert len(list(folder.glob(".adv.*.parts/0*.npz"))) >= wanted
    assert run(*PGD, *options, "--resume").code == 0
    for eps in ("0.01", "0.1"):
        assert (folder / f"adv.eps{eps}.npz").read_bytes() == (folder / f"whole.eps{eps}.npz").read_bytes()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    "changed", [("--seed", "1"), ("--max-iter", "9"), ("--mean", "0.1"), ("--data", "adversarial.npz")]
)
def test_resume_with_something_changed(folder: Path, run: Run, changed: tuple[str, ...]) -> None:
    np.savez(
        folder / "late.npz", x=np.concatenate([np.load(folder / "clean.npz")["x"], np.full((12, 4), 1.5, np.float32)])
    )
    options = ("--batch-size", "4", "--data", "late.npz", "--limit", "8")
    assert run(*PGD, *options).code == 0
    # What an interrupt leaves: the finished batches, without the output.
    left = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *PGD, *options, "--force"], cwd=folder, check=False, capture_output=True
    )
    assert left.returncode == 130, left.stderr
    before = files(folder)
    result = run(*PGD, *options, *changed, "--resume", "--force")
    assert result.code == 2
    assert "start again without --resume" in result.err
    assert files(folder) == before
    assert run(*PGD, *options, "--resume", "--force").code == 0
    assert not (folder / ".adv.npz.parts").exists()


INTERRUPTED = """
import sys
from cloakonnx.attacks import attack
from cloakonnx.cli import main

map_batches = attack.map_batches

def interrupted(*arguments, on_progress, **options):
    def stop(samples):
        raise KeyboardInterrupt
    return map_batches(*arguments, on_progress=stop, **options)

attack.map_batches = interrupted
sys.argv[0] = "cloakonnx"
main()
"""
