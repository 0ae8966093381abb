"""What can not run on Ray is refused in one line, before any batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from cloakonnx.engine.cluster import _crew
from cloakonnx.engines import Ray
from cloakonnx.errors import OptionError, WorkerError
from tests.cluster.test_batches import totals
from tests.engine.test_batches import Work, run


@pytest.fixture
def refusing() -> int:
    """A port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def no_ray() -> Any:
    """A port that takes connections and says nothing."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found.getsockname()[1]


def refused(address: str) -> str:
    """Return what the command line says of an address: one line, within 10 s of the connection's start."""
    code = (
        "import sys, time, ray\n"
        "from cloakonnx.engines import Ray\n"
        "from cloakonnx.errors import OptionError\n"
        "began = time.monotonic()\n"
        "try:\n"
        f"    Ray({address!r}).workers\n"
        "except OptionError as error:\n"
        "    print(error)\n"
        "assert time.monotonic() - began < 10\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "RAY_TMPDIR"}}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stderr == ""
    (line,) = ran.stdout.splitlines()
    return line


def test_addresses_that_do_not_answer(refusing: int, no_ray: int) -> None:
    for port in (refusing, no_ray):
        for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
            assert refused(address) == f"address {address}: no Ray answers there within 8 s"


def test_no_gpu(cluster: Any) -> None:
    asked = Ray(cluster.address, gpus_per_worker=1)
    with pytest.raises(OptionError, match=r"^no node of the Ray cluster has a GPU for a worker \(gpus_per_worker\)$"):
        _ = asked.workers
    asked.close()
    with pytest.raises(OptionError, match=r"^no node of the Ray cluster has 2 CPUs for a worker \(cpus_per_worker\)$"):
        _ = Ray(cluster.address, cpus_per_worker=2).workers


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}, {"gpus_per_worker": 1.5}]
)
def test_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="must be"):
        Ray(**options)


def test_other_versions(cluster: Any, engine: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.close()  # workers that have run are not asked again
    here = _crew.versions()
    monkeypatch.setattr(_crew, "versions", lambda: here | {"ONNX Runtime": "1.0.0"})
    with pytest.raises(
        WorkerError,
        match=r"^the Ray node [\d.]+ has ONNX Runtime [\d.]+, and this process has ONNX Runtime 1\.0\.0: install",
    ):
        run(Work(), 3, engine)
    monkeypatch.undo()
    engine.close()
    assert run(Work(), 3, engine) == totals(3)


def test_a_connection_that_is_there_is_used_and_left(cluster: Any, engine: Ray) -> None:
    import ray

    engine.close()
    assert not ray.is_initialized()
    ray.init(cluster.address, log_to_driver=False, logging_level="critical")
    try:
        own = Ray()  # would start a Ray
        assert own.workers == 3
        assert run(Work(), 3, own) == totals(3)
        own.close()
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_the_environment_is_left_as_it_was(engine: Ray) -> None:
    before = dict(os.environ)
    engine.close()
    assert engine.workers == 3
    assert dict(os.environ) == before
