"""What the tests of folding share: float64 nets, and the folded model beside the one with Mul nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from cloakonnx.graph.file.model import Model, load_bytes
from cloakonnx.graph.fold.fold import folded, folding
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import Mask
from cloakonnx.graph.masks.taps import find_tap
from cloakonnx.graph.subgraphs.inline import inline

F64 = TensorProto.DOUBLE


def net(
    nodes: Sequence[NodeProto],
    weights: dict[str, NDArray[Any]],
    shape: Sequence[int | str | None],
    outputs: Sequence[str] = ("y",),
    *,
    opset: int = 17,
    ir: int = 8,
    elem_type: int = F64,
) -> Model:
    """Make a model on ``x`` whose weights have the dtype that they are given in."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", elem_type, shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = ir
    inferred = onnx.shape_inference.infer_shapes(made)
    types = {value.name: value for value in inferred.graph.output}
    for output in made.graph.output:
        output.CopyFrom(types[output.name])
    return load_bytes(made.SerializeToString())


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """Make a node named after its first output; names are divided by blanks, ``_`` is none."""
    names = [("" if name == "_" else name) for name in inputs.split()]
    return helper.make_node(op_type, names, outputs.split(), name=f"n_{outputs.split(maxsplit=1)[0]}", **attributes)


def normal(seed: int, *shape: int, dtype: Any = np.float64) -> NDArray[Any]:
    """Return a weight."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def positive(model: Model, tap: str, seed: int = 0, features: int | None = None) -> Mask:
    """Return a mask with weights in [0.05, 2]."""
    count = find_tap(model, tap).features or features
    assert count is not None
    return Mask(tap, np.random.default_rng(seed).uniform(0.05, 2, count).astype(np.float32))


def run(proto: ModelProto, x: NDArray[Any]) -> list[NDArray[Any]]:
    """Run a model in onnx's reference implementation."""
    found = ReferenceEvaluator(proto).run(None, {"x": x})
    assert isinstance(found, list)
    return found


def relative(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the largest difference over the largest value of the second."""
    assert first.shape == second.shape
    wide = first.astype(np.float64), second.astype(np.float64)
    return float(np.abs(wide[0] - wide[1]).max(initial=0) / max(np.abs(wide[1]).max(initial=0), 1e-300))


def compared(model: Model, masks: Sequence[Mask], x: NDArray[Any], tolerance: float = 1e-13) -> dict[str, str | None]:
    """Check that folding changes no output and no node, and return why each tap stays a Mul, None where it folds."""
    made = folding(model, masks)
    reasons = {fate.tap: fate.reason for fate in made.fates}
    proto = inline(folded(model, masks))
    reference = inline(hardened(model, masks))
    original = run(model.proto, x)
    for mine, its, plain in zip(run(proto, x), run(reference, x), original, strict=True):
        assert relative(mine, its) <= tolerance
        assert mine.dtype == plain.dtype
    kept = sum(reason is not None for reason in reasons.values())
    types = [each.op_type for each in proto.graph.node]
    assert len(types) == len(model.proto.graph.node) + kept * (1 if model.proto.ir_version >= 4 else 2)
    onnx.checker.check_model(proto, full_check=True)
    return reasons


X = normal(99, 2, 3, 8, 8)
TAPS = ("a0", "i1", "a1", "i2", "a2")
"""Of :func:`residual`."""


def conv(inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return node("Conv", inputs, output, **attributes)


def residual() -> Model:
    """Two residual blocks, the second with a strided, padded shortcut, then pool, Flatten and Gemm."""
    nodes = [
        conv("x w0 b0", "z0", pads=[1] * 4),
        node("Relu", "z0", "a0"),
        conv("a0 w1 b1", "z1", pads=[1] * 4),
        node("Relu", "z1", "i1"),
        conv("i1 w2 b2", "z2", pads=[1] * 4),
        node("Add", "z2 a0", "s1"),
        node("Relu", "s1", "a1"),
        conv("a1 w3 b3", "z3", pads=[1] * 4, strides=[2, 2]),
        node("Relu", "z3", "i2"),
        conv("i2 w4", "z4", pads=[1] * 4),
        node("Slice", "a1 starts ends axes steps", "thin"),
        node("Pad", "thin pads", "short"),
        node("Add", "z4 short", "s2"),
        node("Relu", "s2", "a2"),
        node("AveragePool", "a2", "pooled", kernel_shape=[4, 4]),
        node("Flatten", "pooled", "flat"),
        node("Gemm", "flat w5 b5", "y"),
    ]
    weights = {f"w{i}": normal(i, *shape) for i, shape in enumerate([(4, 3, 3, 3), (4, 4, 3, 3), (4, 4, 3, 3)])}
    weights |= {"w3": normal(3, 6, 4, 3, 3), "w4": normal(4, 6, 6, 3, 3), "w5": normal(5, 6, 3), "b5": normal(15, 3)}
    weights |= {f"b{i}": normal(10 + i, size) for i, size in enumerate([4, 4, 4, 6])}
    weights |= {"starts": np.array([0, 0]), "ends": np.array([99, 99]), "axes": np.array([2, 3])}
    weights |= {"steps": np.array([2, 2]), "pads": np.array([0, 1, 0, 0, 0, 1, 0, 0])}
    return net(nodes, weights, ["N", 3, 8, 8])


def chain(op: onnx.NodeProto, weights: dict[str, NDArray[Any]] | None = None) -> Model:
    """Convolution, Relu ``a``, an op from ``a`` to ``b``, another convolution."""
    nodes = [conv("x w b0", "z"), node("Relu", "z", "a"), op, conv("b w1 b1", "y")]
    known = {"w": normal(1, 4, 3, 1, 1), "b0": normal(2, 4), "w1": normal(3, 5, 4, 1, 1), "b1": normal(4, 5)}
    return net(nodes, known | (weights or {}), ["N", 3, 8, 8])


def between(op_type: str, extra: str = "", **attributes: Any) -> onnx.NodeProto:
    return node(op_type, f"a {extra}".strip(), "b", **attributes)
