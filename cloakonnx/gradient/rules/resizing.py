"""Resize: along each axis a linear map, whose matrix is what the op makes of the unit vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from cloakonnx.gradient._site import GradientSite
from cloakonnx.gradient.registry import Grads, rule
from cloakonnx.gradient.rules._along import apply_along
from cloakonnx.graph.build import Tensor

_IR_VERSION = 10
_PROBE = 6
"""Input size at which a Resize of unknown size is tried for whole factors."""


@rule("Resize", since=10, until=19, note="any mode for inputs of fixed size; nearest by whole factors for others")
def resize(s: GradientSite) -> Grads:
    """The transposed matrix of each axis; repeating by a whole factor is a sum over blocks."""
    s.only(0)
    if s.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise s.error("tf_crop_and_resize is not supported")
    shape, result = s.shape(s.x, "data input"), s.y.dims or ()
    grad = s.dy
    for axis, (scale, size) in _wanted(s, len(shape)).items():
        before, after = shape[axis], size if size is not None else result[axis]
        if scale == 1 or (before is not None and before == after):
            continue
        if isinstance(before, int) and isinstance(after, int):
            matrix = _matrix(s, before, after, scale)
        elif scale is not None and scale == int(scale):
            matrix = _matrix(s, _PROBE, _PROBE * int(scale), scale)
        else:
            raise s.error("it needs an input of fixed shape")
        factor = matrix.shape[0] // matrix.shape[1]
        if np.array_equal(matrix, np.repeat(np.eye(matrix.shape[1]), factor, axis=0)):
            grad = _sum_blocks(s, grad, axis, factor)
        elif isinstance(before, int) and isinstance(after, int):
            grad = apply_along(s, grad, axis, matrix.T)
        else:
            raise s.error("it needs an input of fixed shape")
    yield 0, grad


def _wanted(s: GradientSite, rank: int) -> dict[int, tuple[float | None, int | None]]:
    """What the node asks for along each axis: a scale or a size."""
    axes = [a % rank for a in s.attr("axes") or range(rank)]
    if s.has(2) and (s.input(2).static or (1,))[0]:
        scales = s.constant(2, "scales").ravel().tolist()
        return {a: (float(v), None) for a, v in zip(axes, scales, strict=True)}
    if s.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        return dict.fromkeys(axes, (None, None))  # what inference says of the output
    sizes = s.value(3)
    if sizes is None:
        return dict.fromkeys(axes, (None, None))
    return {a: (None, int(v)) for a, v in zip(axes, sizes.ravel(), strict=True)}


def _matrix(s: GradientSite, before: int, after: int, scale: float | None) -> npt.NDArray[np.float64]:
    """The map along an axis, (after, before): the op itself, run on the unit vectors as rows."""
    node = onnx.NodeProto()
    node.CopyFrom(s.node)
    kept = [a for a in s.node.attribute if a.name not in {"axes", "keep_aspect_ratio_policy"}]
    del node.attribute[:], node.input[:], node.output[:]
    node.attribute.extend(kept)
    node.attribute.append(onnx.helper.make_attribute("axes", [1]))
    node.input.extend(["x", "", "scales", ""] if scale is not None else ["x", "", "", "sizes"])
    node.output.append("y")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)
    scales = onnx.helper.make_tensor_value_info("scales", onnx.TensorProto.FLOAT, None)
    sizes = onnx.helper.make_tensor_value_info("sizes", onnx.TensorProto.INT64, None)
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph([node], "axis", [x, scales if scale is not None else sizes], [y])
    opsets = [onnx.helper.make_opsetid("", max(s.build.opset, 18))]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    feeds: dict[str, npt.NDArray[np.generic]] = {"x": np.eye(before, dtype=np.float32)}
    if scale is not None:
        feeds["scales"] = np.array([scale], np.float32)
    else:
        feeds["sizes"] = np.array([after], np.int64)
    return _run(model, feeds).T.astype(np.float64)


def _run(model: onnx.ModelProto, feeds: dict[str, npt.NDArray[np.generic]]) -> npt.NDArray[np.float32]:
    """Run it in ONNX Runtime: onnx's reference takes other neighbours in many modes, and the model runs there."""
    import onnxruntime as ort  # noqa: PLC0415 - rules are loaded by inspect, which runs nothing

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    return np.asarray(found, np.float32)


def _sum_blocks(s: GradientSite, grad: Tensor, axis: int, factor: int) -> Tensor:
    """Sum neighbours along an axis, ``factor`` at a time."""
    shape = [0] * axis + [-1, factor]
    if axis + 1 < s.rank:
        blocks = grad.reshape(s.build.ints(*shape).op("Concat", grad.op("Shape", start=axis + 1), axis=0))
    else:
        blocks = grad.reshape(*shape)
    return blocks.sum(axis + 1, keepdims=False)
