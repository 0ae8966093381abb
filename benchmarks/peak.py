"""Runs a command in a process of its own and watches its memory (Linux)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.005
_MIB = 1024


@dataclass(frozen=True)
class Run:
    """One run of a command.

    Attributes:
        seconds: Of the job alone where the process printed ``{"seconds": ...}`` last, of the whole process where not.
        resident: Peak resident memory in MiB (VmHWM). Pages of mapped files count, though the system may drop them.
        anonymous: Peak of the memory that is the process's own, in MiB (RssAnon, sampled).
    """

    seconds: float
    resident: float
    anonymous: float


def run(command: Sequence[str]) -> Run:
    """Run a command to its end; exits with its error where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    status = Path(f"/proc/{process.pid}/status")
    resident = anonymous = 0.0
    while process.poll() is None:
        found = _memory(status)
        resident, anonymous = max(resident, found.get("VmHWM", 0.0)), max(anonymous, found.get("RssAnon", 0.0))
        time.sleep(_INTERVAL)
    whole = time.perf_counter() - start
    output, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command[-4:])} failed:\n{errors}")
    last = output.strip().splitlines()[-1:]
    seconds = json.loads(last[0])["seconds"] if last and last[0].startswith('{"seconds"') else whole
    return Run(seconds, resident, anonymous)


def _memory(status: Path) -> dict[str, float]:
    try:
        lines = status.read_text().splitlines()
    except OSError:  # it has just ended
        return {}
    fields = (line.split() for line in lines if line.startswith(("VmHWM", "RssAnon")))
    return {name.rstrip(":"): int(value) / _MIB for name, value, _ in fields}
