"""What can not run on Ray is refused in one line, before any batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import pytest

from cloakonnx.engine.cluster import _crew
from cloakonnx.engine.cluster._connection import _listener_left_out
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


CODE = """
import sys, time, ray
from cloakonnx.engines import Ray
from cloakonnx.errors import OptionError
began = time.monotonic()
try:
    Ray(sys.argv[1]).workers
except OptionError as error:
    print(error)
assert time.monotonic() - began < 20  # Ray itself waits for minutes
"""


def test_addresses_that_do_not_answer(refusing: int, no_ray: int) -> None:
    """All at a time, for each takes 8 s."""
    addresses = [f"{kind}127.0.0.1:{port}" for port in (refusing, no_ray) for kind in ("", "ray://")]
    environment = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "RAY_TMPDIR"}}
    options: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen([sys.executable, "-c", CODE, each], **options) for each in addresses]
    for address, each in zip(addresses, running, strict=True):
        said, errors = each.communicate(timeout=300)
        assert errors == ""
        assert said == f"address {address}: no Ray answers there within 8 s\n"


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


def test_a_ray_without_the_thread_that_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is private: another version may have none, and connects all the same."""
    from ray._private import worker

    before = worker.listen_error_messages
    with _listener_left_out():
        assert worker.listen_error_messages is not before
    assert worker.listen_error_messages is before
    monkeypatch.delattr(worker, "listen_error_messages")
    with _listener_left_out():
        assert not hasattr(worker, "listen_error_messages")
    assert not hasattr(worker, "listen_error_messages")
