"""One Ray cluster of three nodes with one CPU each, all on this machine, for all tests of the session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloakonnx.engines import Ray

ROOT = Path(__file__).parents[2]
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The cluster; a test that removes a node adds one again (:func:`add_node`)."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("r")  # short: the paths of sockets have 107 bytes at most
        (folder / "ray").mkdir()
        patch.setenv("RAY_TMPDIR", str(folder))  # sessions, and the address that "auto" finds
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        from ray.cluster_utils import Cluster

        made = Cluster()
        try:
            for _ in range(3):
                add_node(made)
            yield made
        finally:
            made.shutdown()


def add_node(cluster: Any) -> Any:
    """Start a node; on a busy machine Ray gives up after half a minute."""
    for _ in range(3):
        try:
            return cluster.add_node(**NODE)
        except Exception as error:
            refused = error
    raise refused


@pytest.fixture(scope="session")
def engine(cluster: Any) -> Iterator[Ray]:
    """Workers on all three nodes, with one intra-op thread each; they stay from test to test."""
    made = Ray(cluster.address)
    yield made
    made.close()
