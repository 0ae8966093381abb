"""A small classifier to hide things in, and the command line in a process with limits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ADDRESSES = 6_000_000_000
SECONDS = 60
"""Far above what a refusal takes, for a busy machine; without the limits these inputs take hours."""

node, info = helper.make_node, helper.make_tensor_value_info
ONE = numpy_helper.from_array(np.ones(1, np.float32), "o")


def model(nodes: Sequence[onnx.NodeProto], weights: Sequence[TensorProto] = (), **more: object) -> onnx.ModelProto:
    """A classifier of 3 classes from (n, 4): ``nodes`` make a scalar c, which is added to the features."""
    w = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3) / 12, "w")
    rest = [
        node("ReduceMean", ["c"], ["m"], keepdims=0),
        node("Add", ["x", "m"], ["t"]),
        node("MatMul", ["t", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        [*nodes, *rest], "g", [info("x", FLOAT, ["n", 4])], [info("y", FLOAT, ["n", 3])], [w, *weights],
        value_info=list(more.pop("infos", ())),
    )  # fmt: skip
    domains = [helper.make_opsetid("", int(more.pop("opset", 17))), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8, functions=list(more.pop("functions", ())))


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))


def called(*arguments: object, seconds: float = SECONDS) -> tuple[int, str, str]:
    """Run the command line in a process with limits."""
    done = subprocess.run(
        [sys.executable, "-m", "cloakonnx", *map(str, arguments)], capture_output=True, text=True, timeout=seconds,
        preexec_fn=limited, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def assert_one_line(found: tuple[int, str, str], said: str) -> None:
    code, out, err = found
    assert (code, out) == (2, ""), err
    assert err.startswith("cloakonnx: ")
    assert err.count("\n") == 1, err
    assert said in err


def attack(path: Path, data: Path, how: str = "fgsm") -> tuple[int, str, str]:
    options = ("--attack", how, "--eps", "0.1", "-o", path.parent / "a.npz", "--force")
    return called("attack", path, "--data", data, *options)
