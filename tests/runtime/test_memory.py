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

SAMPLES, FEATURES, EACH = 12, 64, 1000
"""A sample of 64 numbers takes 64 x 1000 x 250 floats inside: 64 MB."""

LIMITED = """
import resource, sys
import numpy, onnx, onnxruntime
from cloakonnx.cli.main import main
with open("/proc/self/statm") as stream:
    used = int(stream.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv.pop(1)),) * 2)
main()
"""


def write(folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Write a model that spreads its features and averages them again, and samples with the labels that it gives."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(FEATURES, 3)).astype(np.float32)
    x = rng.random((SAMPLES, FEATURES)).astype(np.float32)
    node = helper.make_node
    nodes = [
        node("Reshape", ["x", "r"], ["q"]),
        node("Expand", ["q", "s"], ["e"]),
        node("Sin", ["e"], ["z"]),
        node("ReduceMean", ["z"], ["m"], axes=[2, 3], keepdims=0),
        node("MatMul", ["m", "w"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([-1, FEATURES, 1, 1]), "r"),
        numpy_helper.from_array(np.array([1, FEATURES, EACH, 250]), "s"),
        numpy_helper.from_array(w, "w"),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["n", FEATURES])], [info("y", TensorProto.FLOAT, ["n", 3])], weights
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "m.onnx")
    y = (np.sin(x.astype(np.float64)) @ w).argmax(axis=1)
    np.savez(folder / "x.npz", x=x, y=np.where(np.arange(SAMPLES) % 3, y, (y + 1) % 3))  # 8 of 12 are right
    return folder / "m.onnx", x, y


def attacked(folder: Path, megabytes: int) -> tuple[int, str]:
    """Attack with noise too small to change anything, with so much memory beside what is in use."""
    write(folder)
    arguments = ["attack", "m.onnx", "--data", "x.npz", "--attack", "noise", "--eps", "1e-6", "-o", "a.npz"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes * 10**6), *arguments], capture_output=True, text=True,
        cwd=folder, timeout=120, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_batch_goes_through_in_smaller_parts(tmp_path: Path) -> None:
    code, err = attacked(tmp_path, 1200)
    assert code == 0, err
    assert err.count("memory does not suffice for a whole batch") == 1
    assert "8 of 12 correct, 8 still correct" in err
    with np.load(tmp_path / "a.npz") as made:
        assert len(made["x"]) == SAMPLES


def test_with_memory_nothing_is_said(tmp_path: Path) -> None:
    code, err = attacked(tmp_path, 8000)
    assert code == 0, err
    assert "memory" not in err
    assert "8 of 12 correct, 8 still correct" in err


def test_one_sample_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    code, err = attacked(tmp_path, 150)
    assert code == 2, err
    (line,) = [each for each in err.splitlines() if "whole batch" not in each]
    assert line.startswith("cloakonnx: out of memory: ONNX Runtime could not allocate")
    assert line.endswith("(cpu); the tensors of one sample need more than there is; free memory")
    assert not (tmp_path / "a.npz").exists()
