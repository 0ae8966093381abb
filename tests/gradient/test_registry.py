"""Rules are found where the registry says they are, and no more modules are loaded than a network's ops need."""

import subprocess
import sys

import pytest

from cloakonnx.gradient import registry

SHOWN = """
import sys
from cloakonnx.gradient.registry import find
assert find("", {op!r}) is not None
print(*sorted(name.rpartition(".")[2] for name in sys.modules if name.startswith("cloakonnx.gradient.rules.")))
"""


@pytest.mark.parametrize("home", registry.HOMES)
def test_ops_are_in_their_homes(home: str) -> None:
    found = [registry.find("", op) for op in registry.HOMES[home].split()]
    assert {entry and entry.rule and entry.rule.__module__.rpartition(".")[2] for entry in found} == {home}


@pytest.mark.parametrize(("op", "loaded"), [("Gemm", {"flat", "linear"}), ("Shape", {"flat"})])
def test_only_the_modules_of_a_networks_ops_are_loaded(op: str, loaded: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", SHOWN.format(op=op)], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == loaded


def test_ops_without_a_home_are_found_and_unknown_ones_are_not() -> None:
    assert registry.find("", "Einsum") is not None
    assert registry.find("com.microsoft", "FusedConv") is not None
    assert registry.find("ai.onnx", "Relu") is registry.find("", "Relu")
    assert registry.find("", "NoSuchOp") is registry.find("com.example", "Relu") is None
