"""What can not run on Ray is one line on stderr and exit code 2: none of Ray's own, and nothing is left behind."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloakonnx.engines import Ray
from tests.attacks.helpers import DIGITS, digits_arrays
from tests.cluster.test_faults import FULL, of_ours, wait_until

DRIVER = """
import sys
{first}
from cloakonnx.engine.cluster import _connection, _crew
_connection._SHORT = {short!r}
here = _crew.versions()
_crew.versions = lambda: here | {differing!r}
sys.argv[0] = "cloakonnx"
from cloakonnx.cli.main import main
main()
"""
"""The command line, whose own Ray lies in a folder of the test's, in a driver of other versions."""

NEVER = """
from ray._private import services
def never(*given):
    raise RuntimeError("no node")
services.get_node = never
"""
WAYS = pytest.mark.parametrize("where", ["address", pytest.param("client", marks=FULL)])
NO_GPU = "cloakonnx: no node of the Ray cluster has a GPU for a worker (--gpus-per-worker)"


@dataclass
class Driver:
    """Runs the command line in processes of its own.

    Attributes:
        folder: The current folder, with the data.
        short: Where a Ray of its own has its files.
        environment: Its variables, by which its processes are known.
    """

    folder: Path
    short: Path
    environment: dict[str, str] = field(default_factory=dict)

    def refused(self, *options: str, first: str = "", **differing: str) -> str:
        """Return the line that an evaluation ends with, once nothing is left of it."""
        before = sorted(self.folder.rglob("*"))
        words = ("evaluate", str(DIGITS), "--data", "x.npz", "--attack", "fgsm", "--eps", "0.1", "-o", "e.json")
        code = DRIVER.format(first=first, short=str(self.short), differing=differing)
        done = subprocess.run(
            [sys.executable, "-c", code, *words, *options],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        *before_it, line = done.stderr.splitlines()
        assert all("intra-op thread(s)" in each for each in before_it), done.stderr
        assert sorted(self.folder.rglob("*")) == before
        assert list(self.short.iterdir()) == []
        wait_until(lambda: not of_ours(self.environment))
        return line


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    x, y = digits_arrays()
    np.savez(tmp_path / "x.npz", x=x[:4], y=y[:4])
    short = Path(tempfile.mkdtemp(prefix="ck", dir="/tmp"))  # the paths of sockets have 107 bytes at most
    left_out = {"RAY_ADDRESS", "RAY_TMPDIR"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    yield Driver(tmp_path, short, {**environment, "CLOAKONNX_TEST": secrets.token_hex(8)})
    shutil.rmtree(short)


@pytest.fixture
def addresses(cluster: Any, engine: Ray, client_address: str) -> dict[str, str]:
    """Return the two ways to the cluster, whose CPUs are free."""
    engine.close()
    return {"address": cluster.address, "client": client_address}


@pytest.mark.parametrize(
    ("where", "name", "other"),
    [("address", "Python", "3.9"), pytest.param("client", "cloakonnx", "0.0.9", marks=FULL)],
)
def test_workers_of_other_versions(
    addresses: dict[str, str], driver: Driver, where: str, name: str, other: str
) -> None:
    said = driver.refused("--engine", addresses[where], **{name: other})
    assert said.startswith("cloakonnx: the Ray node ")
    assert f", and this process has {name} {other}: install the same versions of Python, cloakonnx and" in said


@WAYS
def test_no_gpu(addresses: dict[str, str], driver: Driver, where: str) -> None:
    said = driver.refused("--engine", addresses[where], "--gpus-per-worker", "1")
    assert said == NO_GPU


@WAYS
def test_another_token(addresses: dict[str, str], driver: Driver, where: str) -> None:
    pytest.importorskip("ray._private.authentication", reason="this version of Ray knows no tokens")
    for variables in ({"RAY_AUTH_TOKEN": secrets.token_hex(32)}, {"RAY_AUTH_MODE": "disabled"}):
        other = replace(driver, environment={**driver.environment, **variables})
        said = other.refused("--engine", addresses[where])
        assert said.startswith(f"cloakonnx: --engine {addresses[where]}: its cluster asks for another token than")


def test_an_address_that_does_not_answer(driver: Driver) -> None:
    said = driver.refused("--engine", "127.0.0.1:9")
    assert said == "cloakonnx: --engine 127.0.0.1:9: no Ray answers there within 8 s"


def test_no_gpu_for_a_ray_of_ones_own(driver: Driver) -> None:
    assert driver.refused("--engine", "ray", "--workers", "1", "--gpus-per-worker", "1") == NO_GPU


@FULL
def test_a_ray_that_does_not_start(driver: Driver) -> None:
    """Its node never answers; what Ray has started by then is ended."""
    said = driver.refused("--engine", "ray", "--workers", "1", first=NEVER)
    assert said.startswith("cloakonnx: Ray does not start on this machine: The current node timed out during startup")
