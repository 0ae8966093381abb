"""The models that same_bytes.py makes of samples/digits_cnn.onnx: float64, float16, quantised."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def dense(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return digits_cnn in float64, its convolutions as Gemm nodes: ONNX Runtime has no Conv in that type."""
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    layers: list[tuple[NDArray[Any], NDArray[Any]]] = []
    shape: tuple[int, ...] = (1, 8, 8)
    for node in convolutions:
        matrix, bias, shape = _unrolled(node, weights, shape)
        layers.append((matrix, bias))
    layers += [(weights["5.weight"].T, weights["5.bias"]), (weights["8.weight"].T, weights["8.bias"])]
    nodes, last = [helper.make_node("Flatten", ["image"], ["flat"])], "flat"
    initial = []
    for number, (matrix, bias) in enumerate(layers, start=1):
        initial += [numpy_helper.from_array(matrix.astype(np.float64), f"w{number}")]
        initial += [numpy_helper.from_array(bias.astype(np.float64), f"b{number}")]
        out = "logits" if number == len(layers) else f"sum{number}"
        nodes.append(helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [out]))
        if out != "logits":
            last = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [out], [last]))
    entry = helper.make_tensor_value_info("image", TensorProto.DOUBLE, ["batch", 1, 8, 8])
    scores = helper.make_tensor_value_info("logits", TensorProto.DOUBLE, ["batch", 10])
    graph = helper.make_graph(nodes, "dense", [entry], [scores], initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _unrolled(
    node: onnx.NodeProto, weights: dict[str, NDArray[Any]], shape: tuple[int, ...]
) -> tuple[NDArray[Any], NDArray[Any], tuple[int, ...]]:
    """Return a convolution as a matrix and a bias over flattened images, and the shape of what it gives."""
    weight, bias = weights[node.input[1]], weights[node.input[2]]
    settings = {each.name: list(each.ints) for each in node.attribute}
    stride, pad = settings.get("strides", [1, 1])[0], settings.get("pads", [0, 0, 0, 0])[0]
    channels, height, width = shape
    padded = np.zeros((channels * height * width, channels, height + 2 * pad, width + 2 * pad))
    padded[:, :, pad : pad + height, pad : pad + width] = np.eye(channels * height * width).reshape(-1, *shape)
    rows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    given = np.einsum("nchwij,ocij->nohw", rows, weight)
    return given.reshape(len(given), -1), np.repeat(bias, given.shape[2] * given.shape[3]), given.shape[1:]


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn every float32 of a model into float16."""
    for each in model.graph.initializer:
        if each.data_type == TensorProto.FLOAT:
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each).astype(np.float16), each.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def quantise(path: Path, x: NDArray[np.float32]) -> None:
    """Quantise a model in place, with the statistics of some images (QuantizeLinear and DequantizeLinear pairs)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"image": x}])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.left, None)

    logging.getLogger().setLevel(logging.ERROR)  # it advises to pre-process
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(path), str(path), Once(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
