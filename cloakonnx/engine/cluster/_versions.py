"""Whether workers have what this process has: results of other versions may differ."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import TypeAlias

from cloakonnx.errors import WorkerError
from cloakonnx.runtime import packages

Versions: TypeAlias = Mapping[str, str]
"""Of Python, cloakonnx and ONNX Runtime, by name; empty where a package is not installed."""


def versions() -> dict[str, str]:
    """Return the versions of this process."""
    runtimes = set(packages.versions().values())
    return {
        "Python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "cloakonnx": version("cloakonnx"),
        "ONNX Runtime": ", ".join(sorted(runtimes)),
    }


def check(found: Versions, here: Versions, node: str) -> None:
    """Raise WorkerError where the versions on a node are not those of this process.

    Args:
        found: On the node.
        here: Of this process.
        node: Address of the node.
    """
    for name, wanted in here.items():
        if found.get(name) != wanted:
            has = f"{name} {found[name]}" if found.get(name) else f"no {name}"
            raise WorkerError(
                f"the Ray node {node} has {has}, and this process has {name} {wanted}: install the same versions of "
                "Python, cloakonnx and ONNX Runtime on every node"
            )
