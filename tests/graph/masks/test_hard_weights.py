"""Weights that are no plain initializer of one layer: each takes its mask, or is refused with the reason."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cloakonnx.errors import TapError
from cloakonnx.graph.file.model import Model, load_bytes
from cloakonnx.graph.masks.harden import hardened
from cloakonnx.graph.masks.mask import INPUT_CHANNEL, KERNEL, OUTPUT_CHANNEL, Mask
from cloakonnx.graph.masks.weights import find_weight, list_weights
from tests.graph.helpers import stripped_bytes

from .test_weight_masks import RNG, X, built, run

WIDE = RNG.normal(size=(72, 4)).astype(np.float32)
MASK = np.random.default_rng(9).uniform(0, 2, (72, 4)).astype(np.float32)
FLAT = X.reshape(3, 72)


def dense(*before: onnx.NodeProto, weight: str = "w", **tensors: NDArray[np.generic]) -> onnx.ModelProto:
    """Return y = flat(x) @ weight, what comes before it, and its initializers."""
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], name="flat"),
        *before,
        helper.make_node("MatMul", ["f", weight], ["y"], name="fc"),
    ]
    proto = built(nodes, {})
    proto.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in tensors.items())
    return proto


def made(proto: onnx.ModelProto, name: str, weights: NDArray[np.float32], unit: str = KERNEL) -> Model:
    """Return the model with one mask, which stripping takes out to the byte."""
    model = load_bytes(proto.SerializeToString())
    found = hardened(model, [Mask(name, weights, granularity=unit)])
    assert stripped_bytes(found) == bytes(model.content)
    return load_bytes(bytes(found.content))


def close(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.ptp(wanted))


VIEWS: dict[str, tuple[Callable[[], onnx.ModelProto], NDArray[np.float32]]] = {
    "reshape": (
        lambda: dense(
            helper.make_node("Reshape", ["flat_w", "sizes"], ["w"]), flat_w=WIDE.reshape(-1), sizes=np.array([72, -1])
        ),
        WIDE,
    ),
    "transpose": (lambda: dense(helper.make_node("Transpose", ["t"], ["w"]), t=WIDE.T.copy()), WIDE),
    "cast": (
        lambda: dense(helper.make_node("Cast", ["half"], ["w"], to=1), half=WIDE.astype(np.float16)),
        WIDE.astype(np.float16).astype(np.float32),
    ),
    "squeeze": (
        lambda: dense(helper.make_node("Squeeze", ["s", "axes"], ["w"]), s=WIDE[None], axes=np.array([0])),
        WIDE,
    ),
    "identity": (lambda: dense(helper.make_node("Identity", ["i"], ["w"]), i=WIDE), WIDE),
    "constant node": (
        lambda: dense(helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(WIDE, "w"))),
        WIDE,
    ),
    "computed": (lambda: dense(helper.make_node("Add", ["a", "a"], ["w"]), a=WIDE), WIDE * 2),
    "concatenated": (
        lambda: dense(helper.make_node("Concat", ["a", "b"], ["w"], axis=0), a=WIDE[:30], b=WIDE[30:]),
        WIDE,
    ),
}


@pytest.mark.parametrize("case", VIEWS)
def test_weights_that_other_nodes_give(case: str) -> None:
    """The mask goes on what the layer reads, whatever that is made from, as long as that is constant."""
    make, weight = VIEWS[case]
    assert [place.name for place in list_weights(load_bytes(make().SerializeToString()))] == ["w"]
    close(run(made(make(), "w", MASK).proto), FLAT @ (weight * MASK))


def test_a_weight_that_a_caller_may_feed() -> None:
    """The mask multiplies what is fed as well as the default."""
    proto = dense(w=WIDE)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, WIDE.shape))
    found = made(proto, "w", MASK)
    close(run(found.proto), FLAT @ (WIDE * MASK))
    other = RNG.normal(size=WIDE.shape).astype(np.float32)
    session = ort.InferenceSession(found.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    close(np.asarray(session.run(None, {"x": X, "w": other})[0]), FLAT @ (other * MASK))


def test_a_weight_that_is_an_output() -> None:
    proto = dense(w=WIDE)
    proto.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, WIDE.shape))
    found = made(proto, "w", MASK)
    session = ort.InferenceSession(found.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    y, w = session.run(None, {"x": X})
    close(np.asarray(y), FLAT @ (WIDE * MASK))
    np.testing.assert_array_equal(w, WIDE, err_msg="the output gives the weight itself")


def test_an_embedding_that_is_tied_through_a_transpose() -> None:
    """The Gather reads the embedding itself, the last layer its transpose: the mask is the last layer's alone."""
    table = RNG.normal(size=(6, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embedding"),
        helper.make_node("Transpose", ["table"], ["turned"], name="turn"),
        helper.make_node("MatMul", ["e", "turned"], ["y"], name="head"),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])
    graph = helper.make_graph(nodes, "tied", [ids], [out], [numpy_helper.from_array(table, "table")])
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    mask = RNG.uniform(0, 2, (4, 6)).astype(np.float32)
    session = ort.InferenceSession(made(proto, "turned", mask).proto.SerializeToString())
    rows = np.array([0, 3, 5])
    close(np.asarray(session.run(None, {"ids": rows})[0]), table[rows] @ (table.T * mask))


def test_two_layers_that_read_a_weight_in_different_roles() -> None:
    """Rows are the output channels of one and the input channels of the other: both read the same product."""
    square = RNG.normal(size=(72, 72)).astype(np.float32)
    proto = dense(helper.make_node("Gemm", ["f", "w"], ["g"], name="first", transB=1), weight="v", w=square, v=WIDE)
    proto.graph.node[-1].input[0] = "h"
    proto.graph.node.insert(2, helper.make_node("MatMul", ["g", "w"], ["h"], name="second"))
    place = find_weight(load_bytes(proto.SerializeToString()), "w")
    assert (place.output_axis, place.input_axis, len(place.nodes)) == (0, 1, 2), "as the first reads it"
    rows = RNG.uniform(0, 2, (72, 1)).astype(np.float32)
    product = square * rows
    close(run(made(proto, "w", rows, OUTPUT_CHANNEL).proto), FLAT @ product.T @ product @ WIDE)


def test_batched_and_first_operands() -> None:
    """W @ x: the rows of W count output channels; a batch of matrices has its own axis in front."""
    first = RNG.normal(size=(1, 5, 6)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["w", "x"], ["m"], name="left"),
        helper.make_node("Flatten", ["m"], ["y"], name="flat"),
    ]
    proto = built(nodes, {"w": first})
    (place,) = list_weights(load_bytes(proto.SerializeToString()))
    assert (place.output_axis, place.input_axis) == (1, 2)
    columns = RNG.uniform(0, 2, (1, 1, 6)).astype(np.float32)
    close(run(made(proto, "w", columns, INPUT_CHANNEL).proto), ((first * columns) @ X).reshape(3, -1))


def quantised_then_turned() -> onnx.ModelProto:
    return dense(
        helper.make_node("DequantizeLinear", ["q", "scale"], ["d"], name="dequantise"),
        helper.make_node("Transpose", ["d"], ["w"], name="turn"),
        q=RNG.integers(-9, 9, (4, 72)).astype(np.int8),
        scale=np.array(0.1, np.float32),
    )


def quantised_in_the_graph() -> onnx.ModelProto:
    return dense(
        helper.make_node("QuantizeLinear", ["f32", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["w"], name="dequantise"),
        f32=WIDE,
        scale=np.array(0.1, np.float32),
        zero=np.array(0, np.int8),
    )


def integers() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"], name="integer"),
        helper.make_node("Cast", ["i"], ["y"], to=1),
    ]
    proto = built(nodes, {})
    proto.graph.initializer.append(numpy_helper.from_array(RNG.integers(-9, 9, (72, 4)).astype(np.int8), "w"))
    return proto


def in_a_branch() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("MatMul", ["f", "w"], ["z"], name="inner")],
        "branch",
        [],
        [helper.make_tensor_value_info("z", 1, None)],
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("If", ["yes"], ["y"], name="choice", then_branch=body, else_branch=body),
    ]
    proto = built(nodes, {"w": WIDE})
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    return proto


def in_a_loop() -> onnx.ModelProto:
    square = RNG.normal(size=(72, 72)).astype(np.float32)
    body = helper.make_graph(
        [helper.make_node("MatMul", ["state", "w"], ["next"]), helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["g"], name="outer"),
        helper.make_node("Loop", ["times", "", "g"], ["y"], name="again", body=body),
    ]
    proto = built(nodes, {"w": square})
    proto.graph.initializer.append(numpy_helper.from_array(np.array(2), "times"))
    return proto


def by_a_function() -> onnx.ModelProto:
    layer = helper.make_function(
        "own",
        "Layer",
        ["a", "b"],
        ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Layer", ["f", "w"], ["y"], name="call", domain="own"),
    ]
    proto = built(nodes, {"w": WIDE})
    proto.functions.append(layer)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    return proto


def both_operands() -> onnx.ModelProto:
    square = RNG.normal(size=(4, 4)).astype(np.float32)
    proto = dense(weight="v", v=WIDE, w=square)
    proto.graph.node.append(helper.make_node("MatMul", ["w", "w"], ["more"], name="power"))
    return proto


def added_too() -> onnx.ModelProto:
    square = RNG.normal(size=(72, 72)).astype(np.float32)
    proto = dense(helper.make_node("MatMul", ["f", "w"], ["g"], name="layer"), weight="v", v=WIDE, w=square)
    proto.graph.node.append(helper.make_node("ReduceSum", ["w"], ["norm"], name="penalty"))
    return proto


def sparse() -> onnx.ModelProto:
    where = np.flatnonzero(np.abs(WIDE) > 1)
    proto = dense()
    weight = proto.graph.sparse_initializer.add(dims=[72, 4])
    weight.values.CopyFrom(numpy_helper.from_array(WIDE.reshape(-1)[where], "w"))
    weight.indices.CopyFrom(numpy_helper.from_array(where.astype(np.int64), "w_indices"))
    return proto


REFUSED: list[tuple[Callable[[], onnx.ModelProto], str]] = [
    (quantised_then_turned, "is made by DequantizeLinear: .*before it is quantised"),
    (quantised_in_the_graph, "is made by DequantizeLinear: .*before it is quantised"),
    (integers, "is not of floating point; harden the model before it is quantised"),
    (in_a_branch, r"is read inside the body of If \(node 'choice'\); only layers of the main graph"),
    (in_a_loop, r"is read inside the body of Loop \(node 'again'\); only layers of the main graph"),
    (sparse, "is a sparse initializer; store its numbers as a dense one"),
    (by_a_function, r"is read by own\.Layer \(node 'call'\), where it is no weight of a layer"),
    (both_operands, r"is read by MatMul \(node 'power'\), where it is no weight of a layer"),
    (added_too, r"is read by ReduceSum \(node 'penalty'\) too, where it is no weight of a layer"),
]


@pytest.mark.parametrize(("make", "said"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_refused(make: Callable[[], onnx.ModelProto], said: str) -> None:
    model = load_bytes(make().SerializeToString())
    assert "w" not in {place.name for place in list_weights(model)}
    with pytest.raises(TapError, match=f"'w' {said}"):
        find_weight(model, "w")
    with pytest.raises(TapError, match=f"'w' {said}"):
        hardened(model, [Mask("w", np.ones((72, 4)), granularity=KERNEL)])


def test_layers_beside_refused_ones_take_their_masks() -> None:
    model = load_bytes(added_too().SerializeToString())
    assert [place.name for place in list_weights(model)] == ["v"]


MEASURED = """
import resource, sys
from pathlib import Path
import numpy as np
from cloakonnx import Mask, load
from cloakonnx.graph.masks.harden import harden_file, strip_file

path, output, back = map(Path, sys.argv[1:])
used = 1024 * int(Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (used + (24 << 20),) * 2)
source = load(path)
masks = [Mask("w", np.full((1, 30000), 2), granularity="output-channel"),
         Mask("w", np.full((20000, 1), 2), granularity="input-channel")]
harden_file(source, masks, output, hash_external=False)
strip_file(load(output), back)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process as Linux does")
def test_a_weight_over_2_gb_is_not_read(tmp_path: Path) -> None:
    """2.4 GB of external data, a hole in the disk, in a process that may take 24 MB more."""
    shape = 20_000, 30_000
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(4 * shape[0] * shape[1])
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size]) for n, size in zip("xy", shape, strict=True)
    )
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], "large", [x], [y], [weight])
    path = tmp_path / "m.onnx"
    proto = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    path.write_bytes(proto.SerializeToString())
    places = [path, tmp_path / "out.onnx", tmp_path / "back.onnx"]
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURED), *map(str, places)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert places[2].read_bytes() == path.read_bytes()
    hard = onnx.load(places[1], load_external_data=False)
    assert [node.op_type for node in hard.graph.node] == ["Mul", "Mul", "MatMul"]
    (kept,) = (t for t in hard.graph.initializer if t.name == "w")
    assert kept == weight
    assert places[1].stat().st_size < 300_000
