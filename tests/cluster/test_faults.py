"""Workers and nodes that die in the middle of a run: the same bytes, and nothing is left behind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cloakonnx.data.batch import Batch
from cloakonnx.engine.batches import Tell, map_batches
from cloakonnx.engines import InProcess, Ray
from cloakonnx.errors import WorkerError
from tests.attacks.helpers import DIGITS
from tests.cluster.conftest import add_node
from tests.cluster.test_batches import totals
from tests.cluster.test_same_bytes import RUNS
from tests.engine.test_batches import SIZE, Sum, batches, run

DATA = DIGITS.parent / "digits_test_fgsm.npz"

FULL = pytest.mark.skipif(
    os.environ.get("CLOAKONNX_CLUSTER") != "all", reason="the whole matrix runs with make test-cluster-all"
)


def is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.1)
    assert is_so()


@dataclass(frozen=True, eq=False)
class Writing:
    """Writes a file for each try of a batch, with the worker's process id; ``ending`` says where that process ends."""

    folder: Path
    ending: dict[int, int] = field(default_factory=dict)
    """How often each of these batches ends its process."""
    seconds: float = 0.0

    result = Sum
    record: dict[str, Any] = field(default_factory=dict)

    def start(self, worker: int = 0) -> Callable[[Batch, Tell], Sum]:
        def handle(batch: Batch, tell: Tell) -> Sum:
            number = batch.start // SIZE
            tries = len(list(self.folder.glob(f"{number}.*")))
            (self.folder / f"{number}.{tries}").write_text(str(os.getpid()))
            time.sleep(self.seconds)
            if tries < self.ending.get(number, 0):
                os.kill(os.getpid(), signal.SIGKILL)
            return Sum(batch.x * 2, int(batch.x.sum()))

        return handle

    def tries(self) -> dict[int, int]:
        found = [int(path.name.split(".")[0]) for path in self.folder.iterdir()]
        return {number: found.count(number) for number in found}

    def processes(self) -> set[int]:
        return {int(path.read_text()) for path in self.folder.iterdir()}


def test_a_batch_runs_again_where_it_ends_its_worker(engine: Ray, tmp_path: Path) -> None:
    work = Writing(tmp_path, {1: 2, 4: 1})
    assert run(work, 8, engine) == totals(8)  # type: ignore[arg-type]
    tries = work.tries()
    assert (tries.pop(1), tries.pop(4)) == (3, 2)
    assert set(tries.values()) <= {1, 2}  # again where the result was still on its way when the worker ended


def test_a_batch_that_ends_three_workers_is_named(engine: Ray, tmp_path: Path) -> None:
    work = Writing(tmp_path, {2: 9}, seconds=0.4)  # no worker has a second batch: what it was at ended it
    found: list[int] = []
    with (
        pytest.raises(
            WorkerError, match=r"^batch 2 \(samples 8 to 11\) has ended 3 workers \(its process ended\)"
        ) as caught,
        map_batches(work, batches(9), engine=engine) as handled,
    ):
        found.extend(result.total for _, result in handled)
    assert found == totals(2)  # what comes before it is done
    assert work.tries()[2] == 3
    assert "\n" not in str(caught.value)


def test_nothing_goes_on_after_an_interrupt(engine: Ray, tmp_path: Path) -> None:
    work = Writing(tmp_path, seconds=30)

    with pytest.raises(KeyboardInterrupt), engine.open(work) as pool:
        interrupt_once(lambda: len(work.tries()) == 3)
        next(pool.run(enumerate(batches(6)), lambda number, share: None))
    wait_until(lambda: not any(is_there(process) for process in work.processes()))


def interrupt_once(is_so: Callable[[], bool]) -> None:
    """Send this process Ctrl-C as soon as something is so."""

    def send() -> None:
        wait_until(is_so)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()


def busy_workers(cluster: Any) -> list[int]:
    """Return the process ids of the workers that handle a batch."""
    return workers_of(cluster, "ray::Worker.handle")


def workers_of(cluster: Any, title: str = "ray::Worker") -> list[int]:
    """Return the process ids of workers; Ray writes what they do into their command line."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent in raylets and (folder / "cmdline").read_bytes().startswith(title.encode()):
                found.append(int(folder.name))
    return found


def kill_a_worker(cluster: Any) -> None:
    """One that is at a batch or has just done one."""
    wait_until(lambda: bool(workers_of(cluster)))
    os.kill(workers_of(cluster)[0], signal.SIGKILL)


def remove_a_node(cluster: Any) -> None:
    """Not the first one: this process is connected to it."""
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)


def with_fault(run_one: Any, engine: Ray, folder: Path, fault: Callable[[], None]) -> Any:
    """Return what a run gives in whose middle something happens."""
    folder.mkdir()
    done: list[float] = []

    def on_progress(samples: float) -> None:
        if samples and not done:
            done.append(samples)
            fault()

    found = run_one(engine, folder, on_progress=on_progress)
    assert done
    return found


def cases() -> list[Any]:
    return [
        pytest.param(
            run_one, fault, id=f"{run_one.__name__}-{fault.__name__}", marks=() if (place, fault) in FEW else FULL
        )
        for place, run_one in enumerate(RUNS)
        for fault in (kill_a_worker, remove_a_node)
    ]


FEW = [(0, kill_a_worker), (2, kill_a_worker), (1, remove_a_node)]


@pytest.mark.parametrize(("run_one", "fault"), cases())
def test_the_same_bytes_after_a_fault(
    engine: Ray, cluster: Any, tmp_path: Path, run_one: Any, fault: Callable[[Any], None]
) -> None:
    (tmp_path / "whole").mkdir()
    whole = run_one(InProcess(), tmp_path / "whole")
    try:
        assert with_fault(run_one, engine, tmp_path / "fault", lambda: fault(cluster)) == whole
    finally:
        while len(cluster.list_all_nodes()) < 3:
            add_node(cluster)


COMMAND = [sys.executable, "-m", "cloakonnx"]
ATTACK = [*COMMAND, "attack", str(DIGITS), "--data", str(DATA), "--attack", "pgd", "--eps", "2/16", "--batch-size", "8"]


def test_a_driver_is_killed_and_resumed(engine: Ray, cluster: Any, tmp_path: Path) -> None:
    """Its workers end with it, and what is done is not done again."""
    engine.close()  # its workers hold the CPUs
    long = [*ATTACK, "--max-iter", "300", "--limit", "64"]
    subprocess.run([*long, "-o", "whole.npz", "--cpus-per-worker", "1"], cwd=tmp_path, check=True, capture_output=True)
    given = [*long, "-o", "a.npz", "--engine", cluster.address]
    with subprocess.Popen(given, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
        parts = tmp_path / ".a.npz.parts"
        wait_until(lambda: len(list(parts.glob("0*.npz"))) >= 2, 120)
        workers = busy_workers(cluster)
        driver.kill()
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("0*.npz")}
    wait_until(lambda: not any(is_there(each) for each in workers))
    again = subprocess.run([*given, "--resume"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert kept
    assert "raylet" not in again.stderr + again.stdout
    assert not parts.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_ray_of_ones_own_ends_with_the_run(tmp_path: Path, number: signal.Signals) -> None:
    """Interrupted, it leaves no process, and says nothing in Ray's words."""
    environment = {**os.environ, "CLOAKONNX_TEST": secrets.token_hex(8)}
    given = [*ATTACK, "-o", "a.npz", "--engine", "ray", "--workers", "2"]
    slow = [*given, "--max-iter", "100000"]
    with subprocess.Popen(
        slow,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as driver:
        try:
            wait_until(lambda: any("ray::Worker.handle" in line for line in of_ours(environment)), 300)
        except BaseException:
            driver.terminate()
            raise
        if number == signal.SIGINT:
            os.killpg(driver.pid, number)  # as Ctrl-C does
        else:
            driver.terminate()
        output, said = driver.communicate(timeout=60)
    assert driver.returncode == 130, said
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if "ray" in line.lower() and "Ray" not in line] == []
    assert output == ""
    wait_until(lambda: not of_ours(environment))


def of_ours(environment: dict[str, str]) -> list[str]:
    """Return the command lines of the processes that have our environment, whoever started them."""
    mark = f"CLOAKONNX_TEST={environment['CLOAKONNX_TEST']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
