"""A kill at any moment of ``apply`` leaves no output or the whole one, and never touches the input."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from cloakonnx.graph.file.model import load
from cloakonnx.graph.masks.harden import harden_file
from cloakonnx.graph.masks.mask import Mask
from tests.fixtures.models import TAP, mlp

SIZE = 50 << 20
KILLS_OF_THE_COMMAND, KILLS_OF_THE_WORK = 12, 38
"""A run is mostly imports. Most runs are forked from a process that has them, so that most kills come at work."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and fork")

FORKS = """
import os, sys
import cloakonnx.cli.apply, cloakonnx.data.arrays, cloakonnx.graph.fold.fold, cloakonnx.scoring.analysis
from cloakonnx.cli import main

for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.argv = ["cloakonnx", *line.rstrip("\\n").split("\\t")]
        try:
            main()
        except SystemExit as end:
            os._exit(end.code or 0)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitpid(child, 0)[1], flush=True)
"""


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class Job:
    """An ``apply`` on a model of 50 MB, with what it must give."""

    folder: Path
    model_sha256: str
    output_sha256: str

    @property
    def output(self) -> Path:
        return self.folder / "out" / "hardened.onnx"

    @property
    def arguments(self) -> list[str]:
        return ["apply", "model.onnx", "--mask", "mask.npy", "--tap", TAP, "-o", str(self.output)]

    def left(self) -> str:
        """Say what a run left behind, hold what must hold of it, and clear it away."""
        names = {each.name for each in self.output.parent.iterdir()}
        parts = {name for name in names if name.startswith(".hardened.onnx.") and name.endswith(".part")}
        if self.output.name in names:
            assert names <= {self.output.name, ".hardened.onnx.lock"}
            assert sha256(self.output) == self.output_sha256
        else:
            assert names <= {".hardened.onnx.lock", *parts}
            assert len(parts) <= 1
        for name in names:
            (self.output.parent / name).unlink()
        return "all" if self.output.name in names else "a part" if names else "nothing"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("kill")
    (folder / "out").mkdir()
    raw = np.random.default_rng(0).bytes(SIZE)
    made = mlp(initializers=[TensorProto(name="large", data_type=2, dims=[SIZE], raw_data=raw)])
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    weights = np.array([0, 1, 1, 0, 1, 0.5], np.float32)
    np.save(folder / "mask.npy", weights)
    expected = folder / "expected.onnx"
    harden_file(load(path), [Mask(TAP, weights)], expected)
    return Job(folder, sha256(path), sha256(expected))


def test_the_command_killed_at_any_moment(job: Job) -> None:
    command = [sys.executable, "-m", "cloakonnx", *job.arguments]

    def run(seconds: float | None) -> float:
        began = time.monotonic()
        with subprocess.Popen(command, cwd=job.folder, stderr=subprocess.DEVNULL) as child:
            try:
                assert child.wait(seconds) == 0
            except subprocess.TimeoutExpired:
                child.kill()
        return time.monotonic() - began

    whole = run(None)
    assert job.left() == "all"
    rng = random.Random(0)
    for index in range(KILLS_OF_THE_COMMAND):
        run(rng.uniform(index, index + 1) / KILLS_OF_THE_COMMAND * 1.1 * whole)
        job.left()
    assert sha256(job.folder / "model.onnx") == job.model_sha256


def test_the_work_killed_at_any_moment(job: Job) -> None:
    found = {"nothing": 0, "a part": 0, "all": 0}
    with subprocess.Popen(
        [sys.executable, "-c", FORKS],
        cwd=job.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(seconds: float | None) -> float:
            print("\t".join(job.arguments), file=server.stdin, flush=True)
            child = int(server.stdout.readline())
            began = time.monotonic()
            if seconds is not None:
                time.sleep(seconds)
                os.kill(child, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
            print(file=server.stdin, flush=True)
            status = int(server.stdout.readline())
            assert status in ({0} if seconds is None else {0, signal.SIGKILL})
            return time.monotonic() - began

        whole = run(None)
        assert job.left() == "all"
        rng = random.Random(1)
        for index in range(KILLS_OF_THE_WORK):
            run(rng.uniform(index, index + 1) / KILLS_OF_THE_WORK * 1.1 * whole)
            found[job.left()] += 1
        server.stdin.close()
    assert sha256(job.folder / "model.onnx") == job.model_sha256
    assert found["a part"] >= KILLS_OF_THE_WORK // 8, f"the kills missed the write: {found}"
