r"""Two checkouts run the same commands: do they write the same bytes?

    python benchmarks/same_bytes.py OLD NEW [--quick] [--models PATTERN] [--old-bin BIN] [--new-bin BIN] [--keep FOLDER]

Each checkout runs in its own environment (CHECKOUT/.venv/bin/cloakonnx). A BIN that is called python runs the
checkout's source in that environment. The script itself needs numpy, onnx, onnxruntime and scikit-learn: run it with
the Python of either environment. Models and data are those of $CLOAKONNX_ASSETS and of samples/, one of them also
turned into float64, float16, and quantised; same_bytes_subjects.py has the list, same_bytes_steps.py
the commands. `--quick` takes a part of them. Both sides run at once, each on half of the cores (`--in-turn`: not so).

Every command starts in a fresh folder, with files of the same names. What it takes of earlier commands is what OLD made
of them, so that a difference stays in the row where it arises. Compared are the exit code, stdout, stderr and every
file that was written: .npz files by the content of their members, texts as texts, ONNX files as bytes. The estimate
of the time on stderr, the folder and the checkout are blanked; versions of packages too, where the two sides' differ
(also the one in an ONNX file's metadata).

A row for each command: the sha256 of all that, `equal` or DIFFERENT, and the exit code. What differs is described below
the table. The exit code is 1 if a row differs.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from same_bytes_steps import Step
from same_bytes_subjects import subjects

PACKAGES = ("cloakonnx", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu")
TEXTS = {".json", ".md", ".html", ".txt", ".toml", ".py"}
_ESTIMATE = re.compile(r"^.*\babout [\d.e+]+ (s|min|h|days)( a sample)? at most.*\n", re.MULTILINE)
"""Printed only where the attacks will take long, which depends on the machine's load."""
_ASK = (
    "import cloakonnx, importlib.metadata as m, json, sys\n"
    "names = {d.metadata['Name'] for d in m.distributions()} & set(sys.argv[1:])\n"
    "print(json.dumps([cloakonnx.__file__, {name: m.version(name) for name in sorted(names)}]))"
)
_AFTER_VERSION = re.compile(r"""(metadata 'cloakonnx.version'": |"key": |"work": )"[0-9a-f]{16,64}\"""")
"""Digests over a version: of a part of a model in its attestation, of a stage of harden."""
_MOST_SECONDS = 900


@dataclass
class Side:
    """One checkout and how its tool is started."""

    label: str
    checkout: Path
    command: list[str]
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    cores: set[int] | None = None
    blanked: set[tuple[str, str]] = field(default_factory=set)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes: no colours, lines of the same length, the source where python starts the tool."""
        source = {"PYTHONPATH": str(self.checkout)} if len(self.command) > 1 else {}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CLOAKONNX", "PYTHON"))}
        return {**kept, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb", **source}


@dataclass(frozen=True)
class Outcome:
    """What a command gave: its exit code, parts to compare by name, and arrays to tell how far they differ."""

    code: int
    parts: dict[str, bytes]
    arrays: dict[str, NDArray[Any]]
    files: dict[str, Path]

    @property
    def digest(self) -> str:
        """sha256 over all parts, names included."""
        made = hashlib.sha256(str(self.code).encode())
        for name, content in sorted(self.parts.items()):
            made.update(f"\0{name}\0{len(content)}\0".encode() + content)
        return made.hexdigest()


def main() -> None:
    """Run everything, print a row for each command, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--old-bin", metavar="BIN")
    parser.add_argument("--new-bin", metavar="BIN")
    parser.add_argument("--quick", action="store_true", help="a part of the models, few samples")
    parser.add_argument("--models", metavar="PATTERN", default="*", help="only models whose name fits")
    parser.add_argument("--in-turn", action="store_true", help="one after the other, not at once on half of the cores")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="work in this new folder and leave it")
    options = parser.parse_args()
    sides = (side("old", options.old, options.old_bin), side("new", options.new, options.new_bin))
    if sides[0].versions != sides[1].versions:  # what comes of old's files has old's versions on both sides
        for each in sides:
            each.blanked = {pair for other in sides for pair in other.versions.items()}
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    workers = 1 if options.in_turn or len(cores) < 2 else 2
    if workers == 2:
        sides[0].cores, sides[1].cores = set(cores[::2]), set(cores[1::2])
    if options.keep:
        options.keep.mkdir(parents=True)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="same-bytes-"))
    try:
        sys.exit(compare(sides, folder.resolve(), workers, quick=options.quick, pattern=options.models))
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def side(label: str, checkout: Path, given: str | None) -> Side:
    """Find a checkout's tool and Python, and ask which packages it has."""
    checkout = checkout.resolve()
    found = Path(given) if given else checkout / ".venv" / "bin" / "cloakonnx"
    if not found.is_file():
        sys.exit(f"{label}: no {found}; name another with --{label}-bin")
    found = found.absolute()
    if found.name.startswith("python"):
        made = Side(label, checkout, [str(found), "-P", "-m", "cloakonnx"], str(found))
    else:
        first = found.read_text(encoding="utf-8", errors="replace").splitlines()[0]
        made = Side(label, checkout, [str(found)], first.removeprefix("#!").strip())
    asked = [made.python, "-P", "-c", _ASK, *PACKAGES]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True, env=made.environment)
    place, made.versions = json.loads(answer.stdout)
    shown = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    print(f"{label}: {Path(place).parent}, {shown}")
    if checkout not in Path(place).resolve().parents:
        sys.exit(f"{label}: {made.command[0]} does not run {checkout}; name another with --{label}-bin")
    return made


def compare(sides: tuple[Side, Side], folder: Path, workers: int, *, quick: bool, pattern: str) -> int:
    """Run both sides, print the table as it grows and the differences; return the exit code."""
    inputs, runs, start = folder / "inputs", folder / "runs", time.monotonic()
    inputs.mkdir()
    different: list[str] = []
    rows = failed = 0
    print("\n| model: command | old | new | | exit code |\n| --- | ---: | ---: | --- | ---: |", flush=True)
    with ThreadPoolExecutor(workers) as pool:
        for subject in subjects(quick=quick):
            if not fnmatchcase(subject.name, pattern):
                continue
            given, kept = subject.files(inputs / subject.name), dict[str, Path]()
            for number, each in enumerate(subject.steps):
                place = runs / subject.name / f"{number:02}"
                name = f"{subject.name}: {each.name}"
                missing = [taken for taken in each.takes if taken not in kept]
                if missing:
                    print(f"| {name} | - | - | not run: no {', '.join(missing)} | |", flush=True)
                    continue
                taken = given | {taken: kept[taken] for taken in each.takes}
                jobs = [pool.submit(run, side, each, taken, place / side.label) for side in sides]
                old, new = (job.result() for job in jobs)
                equal = old.digest == new.digest
                codes = f"{old.code}" if old.code == new.code else f"{old.code}, {new.code}"
                shown = "equal" if equal else "DIFFERENT"
                print(f"| {name} | {old.digest[:12]} | {new.digest[:12]} | {shown} | {codes} |", flush=True)
                rows, failed = rows + 1, failed + (old.code != 0)
                different += [] if equal else [f"{name}\n{differences(old, new)}"]
                kept.update(old.files)
                if equal:
                    shutil.rmtree(place / "new")
    if not rows:
        sys.exit(f"no model {pattern}")
    minutes = (time.monotonic() - start) / 60
    print(
        f"\n{rows} rows, {len(different)} different; old ended with another code than 0 in {failed}; {minutes:.1f} min"
    )
    print(*(f"\n{text}" for text in different), sep="\n")
    return 1 if different else 0


def run(side: Side, step: Step, given: dict[str, Path], folder: Path) -> Outcome:
    """Run a command in a fresh folder and gather what it gave."""
    folder.mkdir(parents=True)
    for name, path in given.items():
        shutil.copy(path, folder / name)
    before = {name: _stamp(folder / name) for name in given}
    pin: Callable[[], None] | None = None
    if side.cores is not None:
        cores = side.cores
        pin = lambda: os.sched_setaffinity(0, cores)  # noqa: E731
    command = [*side.command, *step.words]
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=side.environment,
            capture_output=True,
            check=False,
            timeout=_MOST_SECONDS,
            preexec_fn=pin,
        )
    except subprocess.TimeoutExpired:
        ended = subprocess.CompletedProcess(command, 124, b"", f"more than {_MOST_SECONDS} seconds".encode())
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name != "__pycache__"]
    files = {path.relative_to(folder).as_posix(): path for path in found}
    made = {name: path for name, path in files.items() if before.get(name) != _stamp(path)}
    return gathered(side, folder, ended, made)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def gathered(side: Side, folder: Path, ended: subprocess.CompletedProcess[bytes], files: dict[str, Path]) -> Outcome:
    """Bring what a command gave into the form that is compared."""
    parts: dict[str, bytes] = {}
    arrays: dict[str, NDArray[Any]] = {}
    digests = {hashlib.sha256(path.read_bytes()).hexdigest(): name for name, path in files.items()}

    def text(content: bytes) -> bytes:
        shown = content.decode("utf-8", "replace")
        for place, name in ((folder, "FOLDER"), (side.checkout, "CHECKOUT")):
            shown = shown.replace(str(place), name)
        if side.blanked:
            for package, version in sorted(side.blanked):
                shown = re.sub(rf"({re.escape(package)}[^\d\n]{{1,20}}){re.escape(version)}", r"\1VERSION", shown)
            shown = _AFTER_VERSION.sub(r"\1", shown)
            for digest, name in digests.items():
                shown = shown.replace(digest, f"SHA256 OF {name}")
        return shown.encode()

    for name, path in files.items():
        if path.suffix == ".npz":
            for member, array in _members(path).items():
                arrays[f"{name}[{member}]"] = array
                if array.dtype.kind in "US":
                    parts[f"{name}[{member}]"] = text("\n".join(map(str, array.ravel())).encode())
                else:
                    parts[f"{name}[{member}]"] = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
            continue
        content = path.read_bytes()
        if path.suffix == ".onnx" and side.blanked:
            content = _unversioned(content)
        parts[name] = text(content) if path.suffix in TEXTS else content
    parts["stdout"] = text(ended.stdout)
    parts["stderr"] = _ESTIMATE.sub("", text(ended.stderr).decode()).encode()
    return Outcome(ended.returncode, parts, arrays, files)


def _members(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as read:
        return {name: np.asarray(read[name]) for name in read.files}


def _unversioned(content: bytes) -> bytes:
    model = onnx.ModelProto.FromString(content)
    for entry in model.metadata_props:
        if entry.key.startswith("cloakonnx") and entry.key.endswith("version"):
            entry.value = "VERSION"
    return model.SerializeToString(deterministic=True)


def differences(old: Outcome, new: Outcome) -> str:
    """Describe what differs: missing files, lines of texts, distances of arrays."""
    lines = [] if old.code == new.code else [f"exit code: {old.code}, {new.code}"]
    for name in sorted(old.parts | new.parts):
        before, after = old.parts.get(name), new.parts.get(name)
        if before == after:
            continue
        if before is None or after is None:
            lines.append(f"{name}: only {'new' if before is None else 'old'} has it")
        elif name in old.arrays and old.arrays[name].dtype.kind not in "US":
            lines.append(f"{name}: {_distance(old.arrays[name], new.arrays[name])}")
        elif _is_text(name):
            first, second = (each.decode("utf-8", "replace").splitlines() for each in (before, after))
            changed = [line[:160] for line in difflib.unified_diff(first, second, lineterm="", n=0)]
            changed = [line for line in changed if not line.startswith(("---", "+++", "@@"))]
            lines += [f"{name}: {len(changed)} lines differ", *(f"    {line}" for line in changed[:6])]
        else:
            lines.append(f"{name}: {len(before)} bytes, {len(after)} bytes")
    return "\n".join(f"  {line}" for line in lines)


def _is_text(name: str) -> bool:
    return name in {"stdout", "stderr"} or name.endswith("]") or Path(name).suffix in TEXTS


def _distance(old: NDArray[Any], new: NDArray[Any]) -> str:
    if old.dtype != new.dtype or old.shape != new.shape:
        return f"{old.dtype} {old.shape}, {new.dtype} {new.shape}"
    count = int((old != new).sum())
    largest = np.abs(old.astype(np.float64) - new.astype(np.float64)).max()
    return f"{count} of {old.size} values differ, by {largest:.3g} at most"


if __name__ == "__main__":
    main()
