"""Writes large models: a chain of square MatMuls, its weights in the file or in a data file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 4096
"""Of every matrix: 64 MiB each in float32."""
TAP = "h1"


def write_inline(path: Path, size: int) -> None:
    """Write a model with about ``size`` bytes of weights inside."""
    layers = _layers(size)
    weights = [
        helper.make_tensor(f"w{i}", TensorProto.FLOAT, [WIDTH, WIDTH], _weights(i), raw=True) for i in range(layers)
    ]
    path.write_bytes(_chain(weights).SerializeToString())


def write_external(path: Path, size: int) -> None:
    """Write a model with about ``size`` bytes of weights in ``path``.data, one matrix in memory at a time."""
    weights = []
    with data_file(path).open("wb") as stream:
        for i in range(_layers(size)):
            tensor = TensorProto(
                name=f"w{i}", data_type=TensorProto.FLOAT, dims=[WIDTH] * 2, data_location=TensorProto.EXTERNAL
            )
            entries = {"location": data_file(path).name, "offset": stream.tell(), "length": 4 * WIDTH * WIDTH}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            stream.write(_weights(i))
            weights.append(tensor)
    path.write_bytes(_chain(weights).SerializeToString())


def data_file(path: Path) -> Path:
    """Return where a model's external data is."""
    return path.with_name(path.name + ".data")


def _layers(size: int) -> int:
    return max(2, round(size / (4 * WIDTH * WIDTH)))


def _weights(seed: int) -> bytes:
    return np.random.default_rng(seed).random((WIDTH, WIDTH), np.float32).tobytes()


def _chain(weights: list[TensorProto]) -> onnx.ModelProto:
    count = len(weights)
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    nodes = [helper.make_node("MatMul", [names[i], f"w{i}"], [names[i + 1]], name=f"matmul{i}") for i in range(count)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
