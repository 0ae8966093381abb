"""One Ray cluster of three nodes with one CPU each, all on this machine, for all tests of the session."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cloakonnx.engines import Ray

ROOT = Path(__file__).parents[2]
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
PORTS = ("metrics_agent_port", "runtime_env_agent_port", "metrics_export_port", "dashboard_agent_listen_port")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The cluster; a test that removes a node adds one again (:func:`add_node`)."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("r")  # short: the paths of sockets have 107 bytes at most
        (folder / "ray").mkdir()
        patch.setenv("RAY_TMPDIR", str(folder))  # sessions, and the address that "auto" finds
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        patch.setenv("RAY_agent_register_timeout_ms", "180000")
        from ray._private import services
        from ray.cluster_utils import Cluster

        patch.setattr(services, "get_node", patient(services.get_node))
        made = Cluster()
        try:
            for _ in range(3):
                add_node(made)
            yield made
        finally:
            made.shutdown()


def patient(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ask for three minutes: Ray gives up a node after half a minute, which a busy machine exceeds."""

    def patiently(*given: Any) -> Any:
        end = time.monotonic() + 180
        while True:
            try:
                return get_node(*given)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    return patiently


def add_node(cluster: Any) -> None:
    """Start a node; with ports that are given it does not wait for its agents to choose some."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind(("", 0))
        ports = [each.getsockname()[1] for each in sockets]
    cluster.add_node(**NODE, **dict(zip(PORTS, ports, strict=True)))


@pytest.fixture(scope="session")
def engine(cluster: Any) -> Iterator[Ray]:
    """Workers on all three nodes, with one intra-op thread each; they stay from test to test."""
    made = Ray(cluster.address)
    yield made
    made.close()
