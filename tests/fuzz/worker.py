"""The process that runs the command lines, with limits; it reports to its parent before and after each."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz import bombs, mutations
from tests.fuzz.commands import command, file_of

verbs = importlib.import_module("cloakonnx.cli.verbs")

GB = 1 << 30
ADDRESSES, CPU_SECONDS = 6 * GB, 60
"""Limits of a worker: bytes of addresses, and seconds of the CPU's time for one input."""

INPUTS = 400
"""Inputs of a worker: a new one begins with little memory in use."""

RUNTIMES_OWN = ".ses"
"""A file that ONNX Runtime itself keeps in the folder for temporary files."""

_MUTATIONS = {"npz": mutations.of_npz, "toml": mutations.of_bytes, "image": mutations.of_bytes,
              "model": mutations.of_model}  # fmt: skip
_COLOUR = re.compile(r"\x1b\[\??[0-9;]*[a-zA-Z]")
_RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|^::", re.MULTILINE)


def call(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Run a command line; return the exit code, what was printed, and the traceback of a defect."""
    out = io.StringIO()
    sys.argv = ["cloakonnx", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = verbs.exit_code()
    except BaseException:
        return 99, out.getvalue(), traceback.format_exc()
    return code, out.getvalue(), ""


def begin(seed: int, number: int, kinds: Sequence[str]) -> tuple[str, random.Random]:
    """Return the kind of an input, and the random numbers that make it."""
    rng = random.Random(f"{seed}:{number}")
    return rng.choice(kinds), rng


def changed(kind: str, made: Mapping[str, list[bytes]], rng: random.Random) -> bytes:
    """Return an input of a kind."""
    if kind == "bomb":
        return bombs.bomb(rng)
    if kind == "options":
        return b""
    return _MUTATIONS.get(kind, mutations.of_json)(rng.choice(made[kind]), rng)


def write(kind: str, data: bytes, made: Mapping[str, list[bytes]], folder: Path) -> None:
    """Write an input to a folder."""
    for old in folder.glob("f[.-]*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    path = folder / file_of(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if kind == "image":
        for label in {*range(10)} - {1}:
            beside = path.parent.parent / str(label)
            beside.mkdir()
            (beside / "b.png").write_bytes(made["image"][0])


def work(options: argparse.Namespace, first: int, made: Mapping[str, list[bytes]], pipe: int) -> None:
    """Run inputs from number ``first`` on in the current folder; ``options.beside`` has the other files."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (GB, GB))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    for number in range(first, first + INPUTS):
        kind, rng = begin(options.seed, number, options.kinds)
        write(kind, changed(kind, made, rng), made, Path())
        for file in options.beside.iterdir():
            here = Path(file.name)
            if not here.is_file() or here.stat().st_mtime_ns != file.stat().st_mtime_ns:
                shutil.copy2(file, here)
        arguments = command(kind, rng)
        resource.setrlimit(resource.RLIMIT_CPU, (int(_seconds()) + CPU_SECONDS, resource.RLIM_INFINITY))
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _memory("VmRSS")
        _send(pipe, {"number": number, "kind": kind, "arguments": arguments})
        start = time.monotonic(), _seconds()
        code, text, defect = call(arguments)
        took = min(time.monotonic() - start[0], _seconds() - start[1])  # other processes take their share of the first
        grew = _memory("VmHWM") - before
        shown = _COLOUR.sub("", text) if code == 0 and "--json" not in arguments else text
        longest = max(map(len, text.splitlines()), default=0) if code else 0
        there = (*Path().glob(".*.part*"), *Path(tempfile.gettempdir()).iterdir())
        left = [path.name for path in there if path.name != RUNTIMES_OWN]
        for name in left:
            for path in (Path(name), Path(tempfile.gettempdir()) / name):
                shutil.rmtree(path, ignore_errors=True)
                path.unlink(missing_ok=True)
        found = {"code": code, "seconds": took, "grew": grew, "longest": longest, "left": left,
                 "raw": bool(_RAW.search(shown)), "defect": defect[-4000:], "text": text[:500]}  # fmt: skip
        _send(pipe, found)
        if grew > GB:
            break
    os._exit(0)


def _seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _memory(key: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # no /proc: the limit of addresses is what stops an input there
        return 0
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def _send(pipe: int, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]
