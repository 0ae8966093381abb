"""The head: it computes what the model computes, from the tap and what else it needs, and says whether it is linear."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from cloakonnx.errors import TapError
from cloakonnx.graph.file.model import load_bytes
from cloakonnx.graph.masks.taps import list_taps
from cloakonnx.graph.subgraphs.head import head
from tests.attacks.helpers import DIGITS
from tests.fixtures import models
from tests.fixtures.core import graph, model, node, value, weights

RUNNABLE = [f for f in models.FIXTURES if f.runs_in_ort and len(f.model.graph.output) == 1]


def run(proto: onnx.ModelProto, wanted: list[str], feed: dict[str, Any]) -> list[NDArray[Any]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {o.name for o in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Fused ops round differently, and a tap in the middle keeps them apart.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(v) for v in session.run(wanted, feed)]


@pytest.mark.parametrize("fixture", RUNNABLE, ids=lambda f: str(f.name))
def test_backbone_and_head_are_the_model(fixture: Any) -> None:
    loaded = load_bytes(fixture.model.SerializeToString())
    (output,) = (o.name for o in fixture.model.graph.output)
    for tap in list_taps(loaded):
        try:
            part = head(loaded, tap.name)
        except TapError as error:
            assert "does not depend" in str(error)
            continue
        if tap.name == output or tap.elem_type == onnx.TensorProto.BFLOAT16:
            continue
        computed = [name for name in (tap.name, *part.sides) if name not in fixture.feed]
        wanted, *inner = run(fixture.model, [output, *computed], fixture.feed)
        feed = dict(zip(computed, inner, strict=True)) | {
            name: v for name, v in fixture.feed.items() if name in part.sides
        }
        found = run(part.proto, [output], {i.name: feed[i.name] for i in part.proto.graph.input})
        # ONNX Runtime keeps float16 as float32 between the nodes that it has no kernel for.
        slack = 2e-3 if wanted.dtype == np.float16 else 0
        np.testing.assert_allclose(found[0], wanted, rtol=slack, atol=slack)


def test_what_is_linear() -> None:
    digits = load_bytes(DIGITS.read_bytes())
    assert head(digits, "/6/Relu_output_0").nonlinear is None
    assert head(digits, "/4/Flatten_output_0").nonlinear == "Relu '/6/Relu'"


CASES = [
    ([node("Softmax", "f", "p"), node("Identity", "p", "y")], None),
    ([node("Relu", "f", "r"), node("Softmax", "r", "y")], "Relu that makes 'r'"),
    ([node("MatMul", ["f", "w"], "z"), node("Add", ["z", "z"], "s"), node("Softmax", "s", "y")], None),
    ([node("MatMul", ["f", "w"], "z"), node("Mul", ["z", "z"], "y")], "Mul that makes 'y'"),
    ([node("MatMul", ["f", "w"], "z"), node("Mul", ["z", "h"], "y")], "Mul that makes 'y'"),
    ([node("MatMul", ["f", "w"], "z"), node("Add", ["z", "h"], "y")], None),
    ([node("MatMul", ["f", "w"], "z"), node("Div", ["c", "z"], "y")], "Div that makes 'y'"),
    ([node("Shape", "f", "n"), node("MatMul", ["f", "w"], "z"), node("Reshape", ["z", "n"], "y")], None),
    ([node("Softmax", "f", "p"), node("MatMul", ["p", "w"], "y")], "Softmax that makes 'p'"),
]


@pytest.mark.parametrize(("nodes", "said"), CASES)
def test_reasons(nodes: list[onnx.NodeProto], said: str | None) -> None:
    made = model(
        graph(
            [node("Relu", "x", "f"), node("Neg", "x", "h"), *nodes],
            [value("x", ["N", 3])],
            [value("y", ["N", 3])],
            [weights("w", 3, 3), weights("c", 3)],
        )
    )
    assert head(load_bytes(made.SerializeToString()), "f").nonlinear == said


def test_no_way_to_the_output() -> None:
    made = model(
        graph(
            [node("Relu", "x", "f"), node("MatMul", ["x", "w"], "y"), node("Neg", "f", "other")],
            [value("x", ["N", 3])],
            [value("y", ["N", 3]), value("other", ["N", 3])],
            [weights("w", 3, 3)],
        )
    )
    with pytest.raises(TapError, match=r"output 'y' does not depend on 'f'"):
        head(load_bytes(made.SerializeToString()), "f", "y")
