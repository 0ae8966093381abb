"""Where memory does not suffice for a batch it goes through in parts: in a process whose addresses are limited."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is set by what /proc tells")

SAMPLES, FEATURES, EACH = 48, 64, 250
"""A sample of 64 numbers takes 64 x 250 x 250 floats inside, twice: 32 MB, and 1,536 MB all of them."""

LIMIT = """
import resource, sys, warnings
import numpy as np, onnx, onnxruntime
from cloakonnx import Classifier, Provider
from cloakonnx.cli.main import main
with open("/proc/self/statm") as stream:
    used = int(stream.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv.pop(1)) * 10**6,) * 2)
"""
SCORES = """
model = Classifier("m.onnx", provider=Provider("CPUExecutionProvider", threads=1))
x = np.load("x.npz")["x"]
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("default")
    found = [model.scores(x) for _ in range(3)]
print(len(said), model._own._session._most)
np.save("scores.npy", found)
"""


def write(folder: Path) -> np.ndarray:
    """Write a model that spreads its features and averages them again, and samples; return the scores."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(FEATURES, 3)).astype(np.float32)
    x = rng.random((SAMPLES, FEATURES)).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "r"], ["q"]),
        node("Expand", ["q", "s"], ["e"]),
        node("Sin", ["e"], ["z"]),
        node("ReduceMean", ["z", "axes"], ["m"], keepdims=0),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([-1, FEATURES, 1, 1]), "r"),
        numpy_helper.from_array(np.array([1, FEATURES, EACH, 250]), "s"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
        numpy_helper.from_array(w, "w"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["n", FEATURES])], [info("y", TensorProto.FLOAT, ["n", 3])], weights
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(made, folder / "m.onnx")
    np.savez(folder / "x.npz", x=x, y=np.arange(SAMPLES) % 3)
    return (np.sin(x.astype(np.float64)) @ w).astype(np.float32)


def run(folder: Path, script: str, megabytes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that gets so much memory beside what its modules take."""
    return subprocess.run(
        [sys.executable, "-c", LIMIT + script, str(megabytes), *arguments], capture_output=True, text=True,
        cwd=folder, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip


# A region of the arena takes 829 MB of 925, its table 26 MB more: without room for both ONNX Runtime loses the region.
@pytest.mark.parametrize(("megabytes", "warned"), [(925, True), (6000, False)])
def test_a_batch_goes_through_in_smaller_parts(megabytes: int, warned: bool, tmp_path: Path) -> None:
    expected = write(tmp_path)
    done = run(tmp_path, SCORES, megabytes)
    assert done.returncode == 0, done.stderr
    times, most = done.stdout.split()
    assert times == str(int(warned))
    assert (most != "None") == warned
    for found in np.load(tmp_path / "scores.npy"):
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-3)  # sums of 62,500 float32


def test_one_sample_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    arguments = ("attack", "m.onnx", "--data", "x.npz", "--attack", "noise", "--eps", "0.1", "-o", "a.npz")
    done = run(tmp_path, "main()", 40, *arguments)
    assert done.returncode == 2, done.stderr
    first, line = done.stderr.splitlines()
    assert first.startswith("cloakonnx: memory does not suffice for a whole batch in ONNX Runtime")
    assert line.startswith("cloakonnx: out of memory: ONNX Runtime could not allocate")
    assert line.endswith("(cpu); the tensors of one sample need more than there is; free memory")
    assert not (tmp_path / "a.npz").exists()
