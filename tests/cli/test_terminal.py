"""What a terminal of 80 columns or fewer shows: lines divided between words, numbers with their intervals whole."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from rich.console import Console

from cloakonnx.cli._output import progress, say
from cloakonnx.evaluation.sweeps.record import load_sweep
from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.reporting.sweep_tables import print_sweep
from cloakonnx.reporting.tables import print_evaluation
from tests.attacks.helpers import DIGITS

from .conftest import Run

EVALUATE = ("evaluate", "h.onnx", "--data", "clean.npz", "--eps", "0.1,0.2", "--attack", "fgsm", "--no-sanity")


@pytest.mark.skipif(sys.platform == "win32", reason="has no pty")
@pytest.mark.parametrize("columns", [40, 80])
def test_lines_are_divided_between_words(columns: int) -> None:
    arguments = ("gate", "e.json", "--require", "robustness>=5%")
    *lines, last = in_a_terminal(columns, *arguments).splitlines()
    assert len(lines) >= (1 if columns == 80 else 2)
    assert max(map(len, (*lines, last))) <= columns
    whole = subprocess.run([sys.executable, "-m", "cloakonnx", *arguments], capture_output=True, text=True, check=False)
    assert " ".join(line.strip() for line in (*lines, last)) == whole.stderr.strip()


def in_a_terminal(columns: int, *arguments: str) -> str:
    import fcntl
    import pty
    import struct
    import termios

    child, descriptor = pty.fork()
    if child == 0:
        kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        os.execve(sys.executable, [sys.executable, "-m", "cloakonnx", *arguments], kept)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    read = b""
    while True:
        try:
            more = os.read(descriptor, 65536)
        except OSError:  # the child has ended
            break
        if not more:
            break
        read += more
    os.waitpid(child, 0)
    os.close(descriptor)
    return read.decode().replace("\r\n", "\n")


@pytest.fixture
def masked(folder: Path) -> Path:
    """Return the folder with a hardened model, h.onnx."""
    harden_file(load("m.onnx"), [Mask("features", np.array([0, 1, 1, 1, 1, 1], np.float32))], "h.onnx")
    return folder


def test_numbers_stay_whole_in_80_columns(run: Run, masked: Path) -> None:
    from cloakonnx.evaluation.evaluation import load_evaluation

    assert run(*EVALUATE, "-o", "e.json").code == 0
    printed = io.StringIO()
    print_evaluation(load_evaluation("e.json"), Console(file=printed, width=80, force_terminal=True, color_system=None))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for line in lines:
        assert line.count("[") == line.count("]"), line
    assert any(re.search(r"\d\.\d%", line) for line in lines)


def test_a_sweep_in_80_columns(run: Run, masked: Path) -> None:
    """Each interval and each word of a head stands in one line."""
    assert run("attack", "m.onnx", "--data", "clean.npz", "--eps", "0.1", "--attack", "fgsm", "-o", "adv.npz").code == 0
    given = ("--data", "clean.npz", "--adversarial", "adv.npz")
    assert run("analyze", "m.onnx", *given, "--tap", "features", "-o", "a.json").code == 0
    done = run("sweep", "m.onnx", *given, "--analysis", "a.json", "--attack", "fgsm", "--eps", "0.1", "-o", "s.json")
    assert done.code == 0, done.err
    printed = io.StringIO()
    print_sweep(load_sweep("s.json"), Console(file=printed, width=80, force_terminal=True, color_system=None))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    tables = "\n".join(lines)
    for word in ("features", "difference,", "masked", "random:"):
        assert re.search(rf"(^| ){word}( |$)", tables, re.MULTILINE), word
    cells = [line for line in lines if re.search(r"\d\]|\[\d|\d\.\.\d", line)]
    assert cells
    for line in cells:
        assert line.count("[") == line.count("]"), line
        assert all(re.fullmatch(r"\d+\.\d\.\.\d+\.\d|\d+%\.\.\d+%", each) for each in line.split() if ".." in each), (
            line
        )


@pytest.mark.skipif(sys.platform == "win32", reason="has no pty")
def test_names_of_taps_stay_whole_in_80_columns() -> None:
    """A name that people copy is not divided; the shape beside it may be."""
    shown = re.sub(r"\x1b\[[0-9;]*m", "", in_a_terminal(80, "inspect", str(DIGITS)))
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("features", "float32", "Flatten", "/0/Conv_output_0", "/4/Flatten_output_0", "/6/Relu_output_0"):
        assert re.search(rf" {name} ", shown)


def test_the_sentence_comes_first_and_more_tables_with_verbose(run: Run, masked: Path) -> None:
    usual = run(*EVALUATE)
    assert usual.code == 0
    assert "robust accuracy" in usual.out.splitlines()[0]
    assert "Controls at" not in usual.out
    for arguments in (("-v", *EVALUATE), (*EVALUATE, "--verbose")):
        complete = run(*arguments)
        assert "Controls at 0.1" in complete.out
        assert "How the worst case at 0.2 came about" in complete.out
        assert complete.out.splitlines()[:4] == usual.out.splitlines()[:4]


def test_a_line_stands_above_the_bar(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with click.Context(click.Command("evaluate")), progress("evaluate, quick", 60):
        say("about 4.2 min at most")
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capfd.readouterr().err).replace("\r", "\n").splitlines()
    assert "about 4.2 min at most" in [line.strip() for line in lines]
