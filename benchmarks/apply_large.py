"""Masking large models: ``apply`` against plain file copies and against graphsurgeon's import, edit, export.

python benchmarks/apply_large.py

Each case runs in a process of its own. Before each one the source is read once, so that it comes from the page cache
as far as memory goes, and what was written before is brought to disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np
import peak
from large_models import TAP, WIDTH, data_file, write_external, write_inline

_BLOCK = 1 << 20
HARDENED = "hardened.onnx"
IMPORTS = "imports only"


def copy(source: Path, folder: Path, *, sync: bool) -> None:
    """Copy the model and its data."""
    for file in _files(source):
        target = folder / file.name
        shutil.copyfile(file, target)
        if sync:
            with target.open("rb") as stream:
                os.fsync(stream.fileno())


def copy_and_hash(source: Path, folder: Path) -> None:
    """Copy as above and hash the model file, whose sha256 a hardened model records: the least that can be done."""
    copy(source, folder, sync=True)
    with source.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")


def harden(source: Path, folder: Path) -> None:
    """Cloakonnx in Python; external data is copied where ``folder`` is another than the source's."""
    import cloakonnx as ck

    ck.apply(ck.load(source), [ck.Mask(TAP, _mask())], folder / HARDENED)


def surgeon(source: Path, folder: Path) -> None:
    """Graphsurgeon's own way: import the model, insert the node, export it."""
    import onnx
    import onnx_graphsurgeon as gs

    graph = gs.import_onnx(onnx.load(source))
    tap = graph.tensors()[TAP]
    consumers = list(tap.outputs)
    masked = gs.Variable(f"{TAP}_masked", dtype=np.float32, shape=tap.shape)
    graph.nodes.append(gs.Node("Mul", inputs=[tap, gs.Constant(f"{TAP}_mask", _mask())], outputs=[masked]))
    for node in consumers:
        node.inputs = [masked if tensor is tap else tensor for tensor in node.inputs]
    graph.toposort()
    external = data_file(source).exists()
    location = data_file(Path(HARDENED)).name
    onnx.save(gs.export_onnx(graph), folder / HARDENED, save_as_external_data=external, location=location)


def nothing(source: Path, folder: Path) -> None:
    """What the process takes before the job: imports only."""


JOBS: dict[str, Callable[[Path, Path], None]] = {
    IMPORTS: nothing,
    "copy": lambda source, folder: copy(source, folder, sync=False),
    "copy, fsync": lambda source, folder: copy(source, folder, sync=True),
    "copy, fsync, sha256": copy_and_hash,
    "harden_file": harden,
    "graphsurgeon": surgeon,
}
CLI = "cloakonnx apply"
BASE = "copy, fsync"


@dataclass(frozen=True)
class Case:
    """A job on a model: written beside it, or into another folder."""

    job: str
    beside: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.job}, beside the source" if self.beside else self.job


INLINE = [Case(job) for job in (*JOBS, CLI)]
EXTERNAL = [*INLINE, Case("harden_file", beside=True), Case(CLI, beside=True)]


def _mask() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    weights = np.ones(WIDTH, np.float32)
    weights[: WIDTH // 20] = 0
    return weights


def _files(source: Path) -> list[Path]:
    return [source, *([data_file(source)] if data_file(source).exists() else [])]


def child(job: str, source: str, folder: str) -> None:
    """Do one job; imports are not timed."""
    import onnx
    import onnx_graphsurgeon

    import cloakonnx as ck

    _ = onnx, onnx_graphsurgeon, ck.apply, ck.load
    start = time.perf_counter()
    JOBS[job](Path(source), Path(folder))
    print(json.dumps({"seconds": time.perf_counter() - start}))


def measure(case: Case, source: Path, mask: Path) -> peak.Run:
    """Run a case once and remove what it wrote."""
    _settle(source)
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        folder = source.parent if case.beside else Path(name)
        if case.job == CLI:
            options = ["--mask", str(mask), "--tap", TAP, "-o", str(folder / HARDENED)]
            command = [sys.executable, "-m", "cloakonnx", "apply", str(source), *options]
        else:
            command = [sys.executable, __file__, "--child", case.job, str(source), str(folder)]
        found = peak.run(command)
        (source.parent / HARDENED).unlink(missing_ok=True)
    return found


def _settle(source: Path) -> None:
    os.sync()
    for file in _files(source):
        with file.open("rb") as stream:
            while stream.read(_BLOCK):
                pass


def compare(source: Path, cases: Sequence[Case], mask: Path, rounds: int) -> str:
    """Return the table for one model; graphsurgeon runs in the first round only."""
    runs: dict[str, list[peak.Run]] = {case.name: [] for case in cases}
    for index in range(rounds):
        turn = index % len(cases)
        for case in [*cases[turn:], *cases[:turn]]:
            common.progress(f"{source.name}, round {index + 1} of {rounds}: {case.name}")
            if index == 0 or case.job != "graphsurgeon":
                runs[case.name].append(measure(case, source, mask))
    base = [run.seconds for run in runs[BASE]]
    rows = [[case.name, *_row(case, runs[case.name], base)] for case in cases]
    head = ["", "runs", "time, s", f"against '{BASE}'", "peak resident, MiB", "of it anonymous, MiB"]
    return common.table(head, rows)


def _row(case: Case, runs: list[peak.Run], base: list[float]) -> list[str]:
    seconds = [run.seconds for run in runs]
    resident, anonymous = (max(values) for values in zip(*((r.resident, r.anonymous) for r in runs), strict=True))
    against = common.spread(common.ratios(seconds, base[: len(seconds)]))
    times = ["-", "-"] if case.job == IMPORTS else [f"{statistics.median(seconds):.2f}", against]
    return [str(len(runs)), *times, f"{resident:.0f}", f"{anonymous:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inline-gb", type=float, default=1.0, help="0: leave out  [1]")
    parser.add_argument("--external-gb", type=float, default=4.0, help="0: leave out  [4]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work: needs three times the larger size  [the system's]")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    print(common.machine("numpy", "onnx", "onnx-graphsurgeon", "protobuf"))
    print(f"\nMedian of {options.rounds} alternating rounds (graphsurgeon: 1), ratios [quartiles]:")
    for kind, size, write, cases in (
        ("inline", options.inline_gb, write_inline, INLINE),
        ("external data", options.external_gb, write_external, EXTERNAL),
    ):
        if not size:
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            mask, source = Path(name) / "mask.npy", Path(name) / "model.onnx"
            np.save(mask, _mask())
            write(source, int(size * 1e9))
            print(f"\n{size:g} GB, {kind}:\n\n{compare(source, cases, mask, options.rounds)}", flush=True)


if __name__ == "__main__":
    main()
