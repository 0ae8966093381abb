"""Sums that undo broadcasting, for sizes that are known and sizes that are not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cloakonnx.gradient._broadcast import summed_to
from cloakonnx.graph.build import Builder
from cloakonnx.graph.index.index import Index


@pytest.mark.parametrize("wide", [(4, 2, 3), ("N", 2, 3), ("N", "M", 3)])
@pytest.mark.parametrize("narrow", [(3,), (1, 3), (2, 1), ("M", 3), (1, 1, 1)])
def test_sums_undo_broadcasting(wide: tuple[int | str, ...], narrow: tuple[int | str, ...]) -> None:
    sizes = {"N": 4, "M": 2}
    graph = onnx.GraphProto(name="g")
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, narrow))
    graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, wide))
    build = Builder(graph, Index(graph), opset=18)
    made = summed_to(build.tensor("y"), build.tensor("x"), build.tensor("y")).op("Identity")
    graph.output.append(helper.make_tensor_value_info(made.name, TensorProto.FLOAT, None))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    shapes = [tuple(sizes.get(str(d), d) for d in dims) for dims in (narrow, wide)]
    x, y = (np.arange(np.prod(shape), dtype=np.float32).reshape(shape) for shape in shapes)
    (found,) = ReferenceEvaluator(model).run(None, {"x": x, "y": y})
    padded = (1,) * (y.ndim - x.ndim) + x.shape
    axes = tuple(a for a in range(y.ndim) if padded[a] == 1 and y.shape[a] != 1)
    np.testing.assert_array_equal(found, y.sum(axes, keepdims=True).reshape(x.shape))
