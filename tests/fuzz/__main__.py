"""Give cloakonnx changed models, data, images, results, settings and options, and count what must not happen.

    python -m tests.fuzz --seconds 3600 --seed 1 --keep findings

Calls run in a forked process with limits, so that native crashes are counted too. Counted as findings: tracebacks,
crashes, more than 10 s, more than 1 GB, error lines above 10,000 characters, raw control characters or workflow
commands in what is printed, and files left behind. The first inputs of each place are kept. Exit code 1 on any finding.
Input number n of a seed is always the same: --first n --count 1 runs it again. POSIX only.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pickle
import re
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from tests.fuzz.seeds import seeds, write_seeds  # noqa: E402
from tests.fuzz.worker import GB, begin, call, changed, verbs, work, write  # noqa: E402

SLOW, LONG, HANGS = 10.0, 10_000, 60.0
"""Seconds and characters that are findings; seconds of the clock after which a worker is killed."""

KINDS = ("model", "npz", "image", "analysis", "attestation", "evaluation", "toml", "options")
SHARES = ("model",) * 24 + tuple(kind for kind in KINDS[1:] for _ in range(8)) + ("bomb",) * 2
FINDINGS = ("tracebacks", "crashes", "over 10 s", "over 1 GB", "long lines", "raw characters", "left behind")
DEFECT = 70
"""Exit code of a worker that a defect of the fuzzer's ended."""

KEPT = 3
"""Inputs that are kept for each place."""


class Run:
    """Counts, and keeps the inputs of findings."""

    def __init__(self, options: argparse.Namespace, made: dict[str, list[bytes]]) -> None:
        self._options, self._made = options, made
        self.kinds: collections.Counter[str] = collections.Counter()
        self.codes: collections.Counter[int] = collections.Counter()
        self.findings: collections.Counter[str] = collections.Counter()
        self.places: collections.Counter[str] = collections.Counter()

    def find(self, what: str, place: str, job: dict[str, Any], detail: str) -> None:
        """Count a finding, and keep the first inputs of its place."""
        self.findings[what] += 1
        self.places[f"{what}: {place}"] += 1
        if self.places[f"{what}: {place}"] > KEPT:
            return
        folder = self._options.keep / f"{what.replace(' ', '-')}-{job['number']}"
        folder.mkdir(parents=True, exist_ok=True)
        kind, rng = begin(self._options.seed, job["number"], self._options.kinds)  # the worker is at the next one
        write(kind, changed(kind, self._made, rng), self._made, folder)
        (folder / "finding.json").write_text(json.dumps({**job, "place": place, "detail": detail}, indent=1))

    def add(self, job: dict[str, Any], found: dict[str, Any]) -> None:
        """Count an input that came to its end."""
        self.kinds[job["kind"]] += 1
        self.codes[found["code"]] += 1
        verb = f"{job['kind']} {job['arguments'][0]}"
        if found["defect"]:
            lines = re.findall(r'cloakonnx/(\S+", line \d+)', found["defect"]) or ["?"]
            self.find(
                "tracebacks", f"{found['defect'].strip().splitlines()[-1][:120]} @ {lines[-1]}", job, found["defect"]
            )
        if found["seconds"] > SLOW:
            self.find("over 10 s", verb, job, f"{found['seconds']:.1f} s: {found['text']}")
        if found["grew"] > GB:
            self.find("over 1 GB", verb, job, f"{found['grew'] / GB:.2f} GB: {found['text']}")
        if found["longest"] > LONG:
            self.find("long lines", verb, job, f"{found['longest']} characters: {found['text']}")
        if found["raw"]:
            self.find("raw characters", verb, job, found["text"])
        if found["left"]:
            self.find("left behind", verb, job, ", ".join(found["left"]))

    def print_summary(self, seed: int) -> None:
        """Print the counts."""
        print(f"{sum(self.kinds.values())} inputs (seed {seed}): {_listed(self.kinds)}")
        print(f"exit codes: {_listed({str(code): count for code, count in self.codes.items()})}")
        print(", ".join(f"{self.findings[name]} {name}" for name in FINDINGS))
        for place, count in self.places.most_common():
            print(f"  {count} {place}")


def _listed(counts: dict[str, int] | collections.Counter[str]) -> str:
    return ", ".join(f"{key} {count}" for key, count in sorted(counts.items()))


def one_worker(run: Run, options: argparse.Namespace, first: int, made: dict[str, list[bytes]], until: float) -> int:
    """Start a worker and follow it to its end; return the number of the next input."""
    pid, receiving = _started(options, first, made)
    buffer, job, since, killed = b"", None, time.monotonic(), False
    following, last = first, options.last
    while True:
        ready, _, _ = select.select([receiving], [], [], 0.5)
        if ready:
            chunk = os.read(receiving, 1 << 16)
            if not chunk:
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "number" in message:
                    job, since = message, time.monotonic()
                elif job is not None:
                    run.add(job, message)
                    following, job = job["number"] + 1, None
        hangs = job is not None and time.monotonic() - since > HANGS
        if hangs or following >= last or (job is None and time.monotonic() > until):
            killed = True
            os.kill(pid, signal.SIGKILL)
            break
    os.close(receiving)
    _, status = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(status) == DEFECT:
        raise RuntimeError("the fuzzer itself failed; see above")
    if job is not None and following < last:
        run.kinds[job["kind"]] += 1
        verb = f"{job['kind']} {job['arguments'][0]}"
        if killed and time.monotonic() - since > HANGS:
            run.find("over 10 s", verb, job, f"killed after {HANGS:.0f} s")
        elif not killed:
            run.find("crashes", f"{verb} status {status}", job, str(status))
        following = job["number"] + 1
    return following


def _started(options: argparse.Namespace, first: int, made: dict[str, list[bytes]]) -> tuple[int, int]:
    """Return the process id of a new worker, and where its reports come from."""
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(receiving)
        try:
            work(options, first, made, sending)
        except BaseException:  # a defect of the fuzzer's: what this process has of its parent must not go on here
            os.write(options.errors, traceback.format_exc().encode())
        os._exit(DEFECT)
    os.close(sending)
    return pid, receiving


def prepared(folder: Path) -> dict[str, list[bytes]]:
    """Make the seeds in a process of its own: the threads of ONNX Runtime's sessions do not survive a fork."""
    path = folder / "seeds.pickle"
    pid = os.fork()
    if pid == 0:
        os.chdir(folder / "beside")
        write_seeds(Path(), call)
        Path("w.bin").write_bytes(bytes(256))
        path.write_bytes(pickle.dumps(seeds(Path())))
        os._exit(0)
    os.waitpid(pid, 0)
    made: dict[str, list[bytes]] = pickle.loads(path.read_bytes())
    return made


def run_all() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, default=0, help="how many inputs; 0: until the time is over")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=SHARES, help="model,npz,...,bomb")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for the inputs of findings")
    options = parser.parse_args()
    options.keep, options.errors = options.keep.absolute(), os.dup(sys.stderr.fileno())
    for verb in verbs._VERBS:  # imported before the fork: a worker then starts in milliseconds
        __import__(f"cloakonnx.cli.{verb}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        for part in ("beside", "here", "tmp"):
            (folder / part).mkdir()
        options.beside, tempfile.tempdir = folder / "beside", str(folder / "tmp")
        os.environ["TMPDIR"] = str(folder / "tmp")
        made = prepared(folder)
        os.chdir(folder / "here")
        run = Run(options, made)
        until, number = time.monotonic() + options.seconds, options.first
        options.last = number + options.count if options.count else sys.maxsize
        while time.monotonic() < until and number < options.last:
            number = one_worker(run, options, number, made, until)
        os.chdir("/")
    run.print_summary(options.seed)
    if run.findings:
        print(f"the inputs are in {options.keep}")
    return 1 if run.findings else 0


if __name__ == "__main__":
    sys.exit(run_all())
