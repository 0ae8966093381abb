"""One Ray cluster of three nodes with one CPU each, all on this machine, for all tests of the session."""

from __future__ import annotations

import os
import secrets
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
STARTS = 4
"""Tries to start a node: its raylet waits 15 s for its agent, which is not enough for a busy machine at first."""


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
        patch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", "90")
        patch.setenv("RAY_AUTH_MODE", "token")  # of versions that know tokens
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        from ray._private import services
        from ray.cluster_utils import Cluster

        patch.setattr(services, "get_node", patient(services.get_node))
        made = Cluster()
        try:
            add_node(made, ray_client_server_port=free_ports(1)[0])
            for _ in range(2):
                add_node(made)
            yield made
        finally:
            made.shutdown()


def patient(get_node: Callable[..., Any]) -> Callable[..., Any]:
    """Ask for a minute and a half: Ray gives up a node after half a minute, which a busy machine exceeds."""

    def patiently(*given: Any) -> Any:
        end = time.monotonic() + 90
        while True:
            try:
                return get_node(*given)
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    return patiently


def add_node(cluster: Any, **options: Any) -> None:
    """Start a node; with ports that are given it does not wait for its agents to choose some."""
    for left in reversed(range(STARTS)):
        try:
            cluster.add_node(**NODE, **dict(zip(PORTS, free_ports(len(PORTS)), strict=True)), **options)
            return
        except Exception as error:  # what Ray raises where a node does not start
            if not left or "timed out" not in str(error):
                raise


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="session")
def engine(cluster: Any) -> Iterator[Ray]:
    """Workers on all three nodes, with one intra-op thread each; they stay from test to test."""
    made = Ray(cluster.address)
    yield made
    made.close()


@pytest.fixture(scope="session")
def client_address(cluster: Any) -> str:
    """The address that a client on another machine would connect to."""
    return f"ray://127.0.0.1:{cluster.head_node._ray_params.ray_client_server_port}"
