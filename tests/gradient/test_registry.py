"""Rules are found where the registry says they are, and no more modules are loaded than a network's ops need."""

import subprocess
import sys

import pytest

from cloakonnx.gradient import registry
from cloakonnx.graph.index.traits import Kind

SHOWN = """
import sys
from cloakonnx.gradient.registry import find
from cloakonnx.gradient._site import GradientSite
def loaded():
    print(*sorted(name.rpartition(".")[2] for name in sys.modules if name.startswith("cloakonnx.gradient.rules.")))
rule = find("", "Gemm").rule
assert find("", "Shape") is not None
loaded()
try:
    list(rule(None))
except AttributeError:  # it is asked for a gradient of nothing
    loaded()
"""


@pytest.mark.parametrize("home", registry.HOMES)
def test_what_is_told_of_ordinary_ops_is_what_their_modules_say(home: str) -> None:
    found = {(entry.family, entry.op): entry for entry in registry.entries() if not entry.domain}
    for op, until in registry.HOMES[home].items():
        entry = found[home, op]
        assert (entry.kind, entry.until, entry.integers) == (Kind.RULE, until, ())


def test_no_module_is_loaded_to_tell_that_ordinary_ops_have_rules() -> None:
    done = subprocess.run([sys.executable, "-c", SHOWN], capture_output=True, text=True, check=True)
    before, after = done.stdout.splitlines()
    assert before.split() == ["flat"]
    assert {"flat", "linear"} <= set(after.split())


def test_ops_without_a_home_are_found_and_unknown_ones_are_not() -> None:
    assert registry.find("", "Einsum") is not None
    assert registry.find("com.microsoft", "FusedConv") is not None
    assert registry.find("ai.onnx", "Relu") is registry.find("", "Relu")
    assert registry.find("", "NoSuchOp") is registry.find("com.example", "Relu") is None
