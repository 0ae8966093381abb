"""The reduction as a graph: two activations in, sums per feature out, so only these leave the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from cloakonnx.errors import InferenceError
from cloakonnx.graph import Tap
from cloakonnx.runtime import Provider, Session, Value, to_numpy
from cloakonnx.scoring.accumulator import Moments

_OUTPUTS = ("abs_delta", "abs_clean", "mean", "m2")
_OPSET = 13  # ReduceSum's axes are an input from here on, ReduceMean's an attribute up to 17


def reduction_graph(tap: Tap, rank: int, *, full: bool) -> onnx.ModelProto:
    """Return the graph that reduces a clean and an adversarial activation of a tap to (F,) float64 sums.

    Differences are taken in float32, or in double where the tap is double, and cast to double before they are summed:
    half the memory traffic of casting both activations first. ``full`` adds what criteria other than DeepCloak's need.
    """
    others = [axis for axis in range(rank) if axis != tap.feature_axis]
    axes = gs.Constant("axes", np.array(others, np.int64))
    wide = tap.elem_type if tap.elem_type == onnx.TensorProto.DOUBLE else onnx.TensorProto.FLOAT
    steps: list[tuple[str, list[str | gs.Constant], str, dict[str, Any]]] = [
        ("Cast", ["clean"], "wide_clean", {"to": wide}),
        ("Cast", ["adversarial"], "wide_adversarial", {"to": wide}),
        ("Sub", ["wide_adversarial", "wide_clean"], "d", {}),
        ("Abs", ["d"], "abs_d", {}),
        ("Cast", ["abs_d"], "double_abs_d", {"to": onnx.TensorProto.DOUBLE}),
        ("ReduceSum", ["double_abs_d", axes], "abs_delta", {"keepdims": 0}),
    ]
    if full:
        steps += [
            ("Cast", ["clean"], "c", {"to": onnx.TensorProto.DOUBLE}),
            ("Abs", ["c"], "abs_c", {}),
            ("ReduceSum", ["abs_c", axes], "abs_clean", {"keepdims": 0}),
            ("ReduceMean", ["c"], "kept_mean", {"axes": others, "keepdims": 1}),
            ("ReduceMean", ["c"], "mean", {"axes": others, "keepdims": 0}),
            ("Sub", ["c", "kept_mean"], "deviation", {}),
            ("Mul", ["deviation", "deviation"], "square", {}),
            ("ReduceSum", ["square", axes], "m2", {"keepdims": 0}),
        ]
    nodes = []
    for op, inputs, output, attributes in steps:
        tensors = [gs.Variable(i) if isinstance(i, str) else i for i in inputs]
        nodes.append(
            OnnxExporter.export_node(gs.Node(op, attrs=attributes, inputs=tensors, outputs=[gs.Variable(output)]))
        )
    shape = [None] * rank
    graph = onnx.helper.make_graph(
        nodes,
        "reduction",
        [onnx.helper.make_tensor_value_info(name, tap.elem_type, shape) for name in ("clean", "adversarial")],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, [None])
            for name in (_OUTPUTS if full else _OUTPUTS[:1])
        ],
        [OnnxExporter.export_tensor_proto(axes)],
    )
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", _OPSET)])


class Reducer:
    """Turns pairs of activations into moments on the device where they are."""

    def __init__(self, tap: Tap, provider: Provider, *, full: bool) -> None:
        self._tap = tap
        self._session = Session(reduction_graph(tap, len(tap.shape), full=full), provider)

    def __call__(self, clean: Value, adversarial: Value, *, start: int) -> Moments:
        """Return the moments of one batch of pairs.

        Args:
            clean: The tap's activation on clean inputs.
            adversarial: And on their adversarial twins, of the same shape.
            start: Index of the first sample, for messages.

        Raises:
            InferenceError: an activation that is NaN or infinite; the message names tap, feature and sample.
        """
        shape = _shape(clean)
        if shape != _shape(adversarial) or len(shape) != len(self._tap.shape):
            raise InferenceError(
                f"tap {self._tap.name!r} has shape {shape} on clean inputs, {_shape(adversarial)} on others"
            )
        sums = [to_numpy(v) for v in self._session.run({"clean": clean, "adversarial": adversarial})]
        if not all(np.isfinite(s).all() for s in sums):
            for kind, value in (("clean", clean), ("adversarial", adversarial)):
                _raise_where_not_finite(to_numpy(value), kind, self._tap, start)
            raise InferenceError(f"the sums of tap {self._tap.name!r} overflow float64 in the batch at sample {start}")
        features = shape[self._tap.feature_axis]
        empty: Sequence[NDArray[np.float64]] = [np.zeros(features)] * (len(_OUTPUTS) - len(sums))
        return Moments(int(np.prod(shape)) // features, *sums, *empty)


def _shape(value: Value) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, np.ndarray) else tuple(value.shape())


def _raise_where_not_finite(activation: NDArray[Any], kind: str, tap: Tap, start: int) -> None:
    bad = np.argwhere(~np.isfinite(activation))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise InferenceError(
            f"tap {tap.name!r} is {activation[at]} at feature {at[tap.feature_axis]} of {kind} sample {start + at[0]}: "
            "the model overflows on this input, or the preprocessing (--scale, --mean, --std) is not the model's"
        )
