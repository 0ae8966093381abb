"""``ray job submit`` and Slurm's scripts, as docs/scale.md has them, on clusters that ``ray start`` makes here."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.attacks.helpers import DIGITS, ROOT
from tests.cluster.conftest import free_ports
from tests.cluster.test_faults import DATA, FULL, is_there, wait_until

HAS_JOBS = pytest.mark.skipif(
    importlib.util.find_spec("aiohttp_cors") is None, reason="ray job submit needs ray[default]: make test-cluster-job"
)
STARTS = 4
EVALUATE = ("evaluate", "digits_cnn.onnx", "--data", DATA.name, "--limit", "64", "--eps", "1/16", "--no-sanity")
SHORT = (*EVALUATE, "--attack", "fgsm", "--batch-size", "8")
LONG = (*EVALUATE, "--attack", "pgd", "--max-iter", "2000", "--batch-size", "8")


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Variables of a user with a home, a token and commands in PATH; the processes that have them end with the test."""
    home = Path(tempfile.mkdtemp(prefix="ck", dir="/tmp"))  # the paths of sockets have 107 bytes at most
    commands = home / "bin"
    commands.mkdir()
    for name, module in (("ray", "ray.scripts.scripts"), ("cloakonnx", "cloakonnx.cli.main")):
        script = commands / name
        script.write_text(f"#!{sys.executable}\nfrom {module} import main\nmain()\n")
        script.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_", "CLOAKONNX_"))}
    made = {
        **kept,
        "HOME": str(home),
        "PATH": f"{commands}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")])),
        "RAY_TMPDIR": str(home / "ray"),
        "CLOAKONNX_TEST": secrets.token_hex(8),
    }
    yield made
    wait_until(lambda: not ended(made))
    shutil.rmtree(home)


def ended(environment: dict[str, str]) -> list[int]:
    """End the processes that have our environment; return those that were there."""
    mark = f"CLOAKONNX_TEST={environment['CLOAKONNX_TEST']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0") and is_there(int(folder.name)):
                found.append(int(folder.name))
                os.kill(found[-1], signal.SIGKILL)
    return found


def inputs(folder: Path) -> Path:
    folder.mkdir()
    for path in (DIGITS, DATA):
        shutil.copy(path, folder)
    return folder


def run(environment: dict[str, str], *words: object, folder: Path, fails: bool = False) -> str:
    done = subprocess.run(
        [*map(str, words)], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=540
    )
    assert fails or done.returncode == 0, done.stdout + done.stderr
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


@FULL
@HAS_JOBS
def test_a_job_is_submitted_stopped_and_submitted_again(environment: dict[str, str], tmp_path: Path) -> None:
    """With a folder that travels with it, so that its inputs are named as they are here."""
    folder, out = inputs(tmp_path / "job"), tmp_path / "out"
    out.mkdir()
    run(environment, "ray", "get-auth-token", "--generate", folder=folder)
    environment["RAY_AUTH_MODE"] = "token"
    address = started(environment, folder)
    job = ("ray", "job")
    to = ("--address", address)
    submit = (*job, "submit", *to, "--working-dir", folder)
    on_it = ("--engine", "auto", "--resume", "-o")

    said = run(environment, *submit, "--", "cloakonnx", *SHORT, *on_it, out / "short.json", folder=folder)
    assert "succeeded" in said
    run(environment, "cloakonnx", *SHORT, "--cpus-per-worker", "1", "-o", out / "here.json", folder=folder)
    assert (out / "short.json").read_bytes() == (out / "here.json").read_bytes()

    long = ("--", "cloakonnx", *LONG, *on_it, out / "long.json")
    number = re.search(r"Job '(\w+)' submitted", run(environment, *submit, "--no-wait", *long, folder=folder))
    assert number is not None
    wait_until(lambda: len(list(out.glob(".long.json.parts/0*.npz"))) >= 2, 240)
    run(environment, *job, "stop", *to, number[1], folder=folder)
    assert "--resume goes on where this stopped" in run(environment, *job, "logs", *to, number[1], folder=folder)
    assert not (out / "long.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob(".long.json.parts/0*.npz")}
    assert len(kept) >= 2
    assert "succeeded" in run(environment, *submit, *long, folder=folder)
    run(environment, "cloakonnx", *LONG, "--cpus-per-worker", "1", "-o", out / "there.json", folder=folder)
    assert (out / "long.json").read_bytes() == (out / "there.json").read_bytes()


def started(environment: dict[str, str], folder: Path) -> str:
    """Start a head with a dashboard, again where the machine is too busy for Ray; return the dashboard's address."""
    for _ in range(STARTS):
        port, dashboard, client = free_ports(3)
        head = ("ray", "start", "--head", f"--port={port}", f"--dashboard-port={dashboard}", "--num-cpus=2")
        sizes = (f"--ray-client-server-port={client}", "--object-store-memory=100000000", "--disable-usage-stats")
        said = run(environment, *head, *sizes, folder=folder, fails=True)
        if "Ray runtime started" in said:
            return f"http://127.0.0.1:{dashboard}"
        ended(environment)
    pytest.fail(said)


SRUN = """#!/bin/bash
# Runs a command once for each task, here: a machine has one name only.
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo node1; echo node2
"""


def slurm(environment: dict[str, str], **variables: str) -> dict[str, str]:
    """Return the variables of a job of Slurm, with commands that stand in for Slurm's."""
    commands = Path(environment["HOME"]) / "bin"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return {**environment, **{f"SLURM_{name}": value for name, value in variables.items()}}


@FULL
def test_ray_in_a_slurm_job(environment: dict[str, str], tmp_path: Path) -> None:
    """On two nodes; the script ends all that it has started."""
    folder = inputs(tmp_path / "job")
    job = slurm(environment, JOB_NODELIST="node[1-2]", JOB_NUM_NODES="2", CPUS_PER_TASK="1")
    script = ROOT / "samples" / "cluster" / "ray.sbatch"
    for left in reversed(range(STARTS)):
        job["RAY_PORT"] = str(free_ports(1)[0])
        said = run(job, "bash", script, *SHORT, "-o", "cluster.json", "--resume", folder=folder, fails=bool(left))
        time.sleep(1)
        assert not ended(environment), said
        if (folder / "cluster.json").exists():
            break
    run(environment, "cloakonnx", *SHORT, "--cpus-per-worker", "1", "-o", "here.json", folder=folder)
    assert (folder / "cluster.json").read_bytes() == (folder / "here.json").read_bytes()
    assert "raylet" not in said


def test_shards_in_an_array_of_slurm(environment: dict[str, str], tmp_path: Path) -> None:
    folder = inputs(tmp_path / "job")
    script = ROOT / "samples" / "cluster" / "shards.sbatch"
    for task in (1, 2):
        job = slurm(environment, ARRAY_TASK_ID=str(task), ARRAY_TASK_COUNT="2", CPUS_PER_TASK="1")
        run(job, "bash", script, *SHORT, "--resume", folder=folder)
    shards = sorted(path.name for path in folder.glob("shard-*.shard"))
    assert shards == ["shard-0001.shard", "shard-0002.shard"]
    run(environment, "cloakonnx", "merge", *shards, "-o", "merged.json", folder=folder)
    run(environment, "cloakonnx", *SHORT, "--workers", "1", "-o", "here.json", folder=folder)
    one, other = (json.loads((folder / name).read_text()) for name in ("merged.json", "here.json"))
    assert one == other
