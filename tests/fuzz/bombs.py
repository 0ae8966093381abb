"""Small models that ask for much memory, time or depth: a kind for each way, sizes and places by chance.

No mutation finds these; they have to be written. Sizes are bounded so that the worker's limits stop all of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
node, info = helper.make_node, helper.make_tensor_value_info
BASE, OWN = helper.make_opsetid("", 17), helper.make_opsetid("own", 1)

Parts = tuple[list[onnx.NodeProto], list[TensorProto]]
"""Nodes that make a tensor c of constants, and the constants."""


def model(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[TensorProto] = (),
    *,
    functions: Sequence[onnx.FunctionProto] = (),
    declared: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 17,
) -> bytes:
    """A classifier of 10 classes from (n, 1, 8, 8), with nodes from f (flat) to t (read by the MatMul)."""
    w = numpy_helper.from_array((np.arange(640).reshape(64, 10) % 7 - 3).astype(np.float32), "w")
    chain = [node("Flatten", ["x"], ["f"]), *nodes, node("MatMul", ["t", "w"], ["y"])]
    graph = helper.make_graph(
        chain, "g", [info("x", FLOAT, ["n", 1, 8, 8])], [info("y", FLOAT, ["n", 10])], [w, *weights],
        value_info=list(declared),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), OWN]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))
    return bytes(made.SerializeToString())


def array(name: str, value: object, dtype: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def added(parts: Parts, rng: random.Random) -> bytes:
    """c is averaged and added to the features: in the graph, in a branch of If, or in a local function."""
    nodes, weights = parts
    use = [node("ReduceMean", ["c"], ["m"], keepdims=0), node("Add", ["f", "m"], ["t"])]
    lies = [info("c", FLOAT, [1])] if rng.random() < 0.3 else []
    match rng.randrange(3):
        case 0:
            return model([*nodes, *use], weights, declared=lies)
        case 1:
            names = [each.name for each in weights]
            made = helper.make_function("own", "f", names, ["c"], nodes, [BASE])
            return model([node("f", names, ["c"], domain="own"), *use], weights, functions=[made])
        case _:
            branch = helper.make_graph(nodes, "b", [], [info("c", FLOAT, None)])
            other = helper.make_graph([node("Identity", ["one"], ["e"])], "e", [], [info("e", FLOAT, None)])
            chosen = node("If", ["flag"], ["c"], then_branch=branch, else_branch=other)
            more = [array("flag", True, np.bool_), array("one", [1], np.float32)]
            return model([chosen, *use], [*weights, *more])


def _many(rng: random.Random) -> int:
    return rng.choice([5_000_000, 30_000_000, 1 << 28, 1 << 29, 1 << 40, 1 << 62])


def _shaped(op: str) -> Callable[[random.Random], Parts]:
    def make(rng: random.Random) -> Parts:
        one, s = array("o", [1], np.float32), array("s", [_many(rng)])
        return [node(op, ["s"] if op == "ConstantOfShape" else ["o", "s"], ["c"])], [one, s]

    return make


def _range(rng: random.Random) -> Parts:
    nodes = [node("Range", ["a", "b", "d"], ["k"]), node("Cast", ["k"], ["c"], to=FLOAT)]
    return nodes, [array("a", 0), array("b", _many(rng)), array("d", 1)]


def _as_shape(rng: random.Random) -> Parts:
    """A tensor of rank n: what is made is taken for a shape."""
    nodes = [node("Expand", ["o", "s"], ["k"]), node("ConstantOfShape", ["k"], ["c"])]
    return nodes, [array("o", [1]), array("s", [rng.choice([65, 100_000, 30_000_000])])]


def _pad(rng: random.Random) -> Parts:
    return [node("Pad", ["o", "s"], ["c"])], [array("o", [1], np.float32), array("s", [0, _many(rng)])]


def _one_hot(rng: random.Random) -> Parts:
    return [node("OneHot", ["i", "d", "v"], ["c"])], [
        array("i", [1]), array("d", _many(rng)), array("v", [0, 1], np.float32)]  # fmt: skip


def _resize(rng: random.Random) -> Parts:
    side = rng.choice([5_000, 32_768])
    one = array("o", np.ones((1, 1, 2, 2)), np.float32)
    return [node("Resize", ["o", "", "", "s"], ["c"], mode="nearest")], [one, array("s", [1, 1, side, side])]


def _random(rng: random.Random) -> Parts:
    return [node(rng.choice(["RandomNormal", "RandomUniform"]), [], ["c"], shape=[_many(rng)])], []


def _window(rng: random.Random) -> Parts:
    return [node(rng.choice(["HannWindow", "BlackmanWindow"]), ["s"], ["c"])], [array("s", _many(rng))]


def _outer(rng: random.Random) -> Parts:
    n = rng.choice([5_000, 9_000])
    sides = [array("p", np.zeros((n, 1)), np.float32), array("q", np.zeros((1, n)), np.float32)]
    return [node(rng.choice(["MatMul", "Mul", "Add"]), ["p", "q"], ["c"])], sides


def _doubled(rng: random.Random) -> Parts:
    depth = rng.randrange(25, 60)
    names = ["o", *(f"c{k}" for k in range(depth - 1)), "c"]
    return [
        node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)
    ], [array("o", [1], np.float32)]  # fmt: skip


CONSTANTS: dict[str, Callable[[random.Random], Parts]] = {
    "constant of shape": _shaped("ConstantOfShape"), "expand": _shaped("Expand"), "tile": _shaped("Tile"),
    "range": _range, "as shape": _as_shape, "pad": _pad, "one hot": _one_hot, "resize": _resize, "random": _random,
    "window": _window, "outer product": _outer, "doubled": _doubled,
}  # fmt: skip


def _functions(rng: random.Random) -> bytes:
    """Each function calls the one before twice: 2**depth nodes when they are written out."""
    depth, domains = rng.choice([12, 16, 30, 60]), [BASE, OWN]
    made = [helper.make_function("own", "f0", ["a"], ["b"], [node("Relu", ["a"], ["b"])], domains)]
    for k in range(1, depth + 1):
        calls = [node(f"f{k - 1}", [i], [o], domain="own") for i, o in (("a", "h"), ("h", "b"))]
        made.append(helper.make_function("own", f"f{k}", ["a"], ["b"], calls, domains))
    return model([node(f"f{depth}", ["f"], ["t"], domain="own")], functions=made)


def _ring(rng: random.Random) -> bytes:
    length = rng.choice([1, 2, 3, 50])
    calls = [node(f"f{(k + 1) % length}", ["a"], ["b"], domain="own") for k in range(length)]
    made = [helper.make_function("own", f"f{k}", ["a"], ["b"], [call], [OWN]) for k, call in enumerate(calls)]
    return model([node("f0", ["f"], ["t"], domain="own")], functions=made)


def _record(field: int, payload: bytes) -> bytes:
    """A field with a length, written by hand: protobuf refuses to write more than 100 levels."""
    length, size = len(payload), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([field << 3 | 2]) + size + bytes([length]) + payload


def _deep_type(rng: random.Random) -> bytes:
    """A sequence of sequences as the type of a value."""
    at = _record(1, b"\x08\x01")
    for _ in range(rng.choice([20, 40, 90, 5_000])):
        at = _record(4, _record(1, at))
    return model([node("Relu", ["f"], ["t"])]) + _record(7, _record(13, _record(1, b"q") + _record(2, at)))


def _deep_if(rng: random.Random) -> bytes:
    inner = helper.make_graph([node("Relu", ["f"], ["o"])], "b", [], [info("o", FLOAT, None)])
    for _ in range(rng.choice([5, 15, 24])):
        chosen = node("If", ["flag"], ["o"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([chosen], "b", [], [info("o", FLOAT, None)])
        if inner.ByteSize() > 500_000:
            break
    return model([node("If", ["flag"], ["t"], then_branch=inner, else_branch=inner)], [array("flag", True, np.bool_)])


def _loop(rng: random.Random) -> bytes:
    """A Loop over constants: endless, or one whose value doubles."""
    doubles = rng.random() < 0.5
    step = node("Concat", ["v", "v"], ["u"], axis=0) if doubles else node("Add", ["v", "v"], ["u"])
    shape = None if doubles else [1]
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), step], "body",
        [info("i", INT64, []), info("go", TensorProto.BOOL, []), info("v", FLOAT, shape)],
        [info("on", TensorProto.BOOL, []), info("u", FLOAT, shape)],
    )  # fmt: skip
    trips = rng.choice([40, 100_000, 1 << 62])  # a million take ONNX Runtime itself a second a run
    weights = [array("trips", trips), array("true", True, np.bool_), array("one", [1], np.float32)]
    turned = node("Loop", [rng.choice(["trips", ""]), "true", "one"], ["c"], body=body)
    use = [node("ReduceMean", ["c"], ["m"], keepdims=0), node("Add", ["f", "m"], ["t"])]
    return model([turned, *use], weights, declared=[info("c", FLOAT, [1])] if rng.random() < 0.3 else [])


def _dims(rng: random.Random) -> bytes:
    dims = rng.choice([[2**40, 2**30], [2**32] * 3, [-1, 64], [0, 2**62], [1] * 65, [2**62, 4]])
    return model(
        [node("Add", ["f", "h"], ["t"])], [TensorProto(name="h", data_type=FLOAT, dims=dims, raw_data=b"\0" * 8)]
    )


def _chain(rng: random.Random) -> bytes:
    op, count = rng.choice(["Relu", "Sigmoid", "Identity", "Neg"]), rng.choice([300, 1_000, 3_000])
    names = ["f", *(f"r{k}" for k in range(count - 1)), "t"]
    return model([node(op, [a], [b]) for a, b in pairwise(names)])


def _split(rng: random.Random) -> bytes:
    return model([node("Split", ["f"], ["t", *(f"o{k}" for k in range(rng.choice([63, 3_000])))], axis=1)])


def _conv(rng: random.Random) -> bytes:
    kernel = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "k")
    big = rng.choice([0, -1, 20_000, 2**31 - 1, 2**31, 2**62])
    setting = rng.choice(
        [
            {"pads": [big] * 4},
            {"dilations": [big] * 2},
            {"strides": [big] * 2},
            {"group": big},
            {"kernel_shape": [big] * 2},
        ]
    )
    return model([node("Conv", ["x", "k"], ["v"], **setting), node("Flatten", ["v"], ["t"])], [kernel])


def _pool(rng: random.Random) -> bytes:
    big = rng.choice([0, 1 << 10, 1 << 31, 1 << 62])
    op = rng.choice(["MaxPool", "AveragePool", "LpPool"])
    pooled = node(op, ["x"], ["v"], kernel_shape=[big, big], pads=[big // 2] * 4)
    return model([pooled, node("Flatten", ["v"], ["t"])])


def _upsampled(rng: random.Random) -> bytes:
    side = rng.choice([2_000, 16_384])
    nodes = [
        node("Resize", ["x", "", "", "s"], ["u"], mode="nearest"), node("ReduceMean", ["u"], ["m"], keepdims=0),
        node("Add", ["f", "m"], ["t"]),
    ]  # fmt: skip
    return model(nodes, [array("s", [1, 1, side, side])])


def _odd(rng: random.Random) -> bytes:  # noqa: PLR0911
    """Attributes, axes, opsets and equations far outside what they may be."""
    match rng.randrange(7):
        case 0:
            return model([node("Relu", ["f"], ["t"])], opset=rng.choice([2**62, -3, 0, 1_000]))
        case 1:
            return model([node("Einsum", ["f"], ["t"], equation="ab->" + "ab" * rng.choice([40, 20_000]))])
        case 2:
            return model([node("Transpose", ["f"], ["t"], perm=list(range(rng.choice([3, 20_000]))))])
        case 3:
            return model(
                [node("Reshape", ["f", "s"], ["t"])], [array("s", rng.choice([[0, -1, -1], [2**62, 4], [-5]]))]
            )
        case 4:
            return model([node("Unsqueeze", ["f", "s"], ["t"])], [array("s", list(range(rng.choice([70, 5_000]))))])
        case 5:
            return model([node("Add", ["f", "u"], ["t"]), node("Relu", ["t"], ["u"])])
        case _:
            return model([node("Relu", ["f"], ["t"]), node("Neg", ["f"], ["t"])])


def _pattern(rng: random.Random) -> bytes:
    """A regular expression that backtracks."""
    text = helper.make_tensor("s", TensorProto.STRING, [1], [b"a" * 40 + b"!"])
    pattern = rng.choice(["(a+)+$", "(a|aa)+$", "(.*a){20}$"])
    nodes = [
        node("RegexFullMatch", ["s"], ["q"], pattern=pattern), node("Cast", ["q"], ["c"], to=FLOAT),
        node("Add", ["f", "c"], ["t"]),
    ]  # fmt: skip
    return model(nodes, [text], opset=20)


MODELS: dict[str, Callable[[random.Random], bytes]] = {
    "functions": _functions, "ring": _ring, "deep type": _deep_type, "deep if": _deep_if, "loop": _loop, "dims": _dims,
    "chain": _chain, "split": _split, "conv": _conv, "pool": _pool, "upsampled": _upsampled, "odd": _odd,
    "pattern": _pattern,
}  # fmt: skip


def bomb(rng: random.Random) -> bytes:
    """One of them."""
    name = rng.choice([*CONSTANTS, *MODELS])
    return MODELS[name](rng) if name in MODELS else added(CONSTANTS[name](rng), rng)
